# A small CLIP for tools/data/train_shapes_towers.py: frames inside moments against sentences.
_base_ = [
    '../_base_/datasets/shapes_frames.py',
    '../_base_/schedules/shapes_towers.py',
]

width, layer = 64, dict(num_attention_heads=2, intermediate_size=128)
architecture = dict(
    model_type='clip',
    projection_dim=width,
    text_config=dict(hidden_size=width, num_hidden_layers=2, **layer),
    vision_config=dict(
        hidden_size=width, num_hidden_layers=4, image_size=48, patch_size=8, **layer
    ),
)
processor = dict(
    image_processor_type='CLIPImageProcessor',
    do_resize=True,
    size=dict(height=48, width=48),
    resample=3,
    do_center_crop=False,
    do_rescale=True,
    rescale_factor=1 / 255,
    do_normalize=True,
    image_mean=[0.22] * 3,
    image_std=[0.16] * 3,
)
del width, layer
