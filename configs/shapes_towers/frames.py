# A small CLIP for tools/data/train_shapes_towers.py: frames inside moments against sentences.
_base_ = '../_base_/datasets/shapes_frames.py'

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
    do_normalize=False,
)
training = dict(
    steps=3000,
    videos=8,
    lr=2e-3,
    warmup=150,
    weight_decay=0.05,
    temperature=0.05,
    shift=2,
    seed=0,
)
del width, layer
