# A small VideoPrism for tools/data/train_shapes_towers.py: windows of 2 s inside moments against
# sentences.
_base_ = [
    '../_base_/datasets/shapes_video.py',
    '../_base_/schedules/shapes_towers.py',
]

width, layer = 64, dict(num_attention_heads=2, intermediate_size=128)
architecture = dict(
    model_type='videoprism',
    text_config=dict(hidden_size=width, num_hidden_layers=2, **layer),
    vision_config=dict(
        hidden_size=width,
        num_spatial_layers=2,
        num_temporal_layers=2,
        num_auxiliary_layers=0,
        image_size=48,
        tubelet_size=[1, 12, 12],
        num_frames=5,
        hidden_act='relu',
        **layer,
    ),
)
processor = dict(
    video_processor_type='LlavaOnevisionVideoProcessor',
    do_resize=True,
    size=dict(height=48, width=48),
    resample=3,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=[0.22] * 3,
    image_std=[0.16] * 3,
    num_frames=5,
)
# transformers draws the positions of places and of frames too small for a short training
training = dict(position_std=1.0)
del width, layer
