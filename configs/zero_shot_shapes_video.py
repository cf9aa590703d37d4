# Zero-shot grounding on Shapes by a small VideoPrism (configs/shapes_towers/video.py).
_base_ = 'zero_shot_shapes_frames.py'

extractor = dict(model='data/shapes/towers/video', clip_len=5)

model = dict(
    tower=extractor,
    # Score and length correction: the best of tools/reproduce.py shapes_towers on validation.
    head=dict(score=dict(rise=0.0, steadiness=0.5, mean=0.5), length_weight=0.05),
)

dataset = dict(data_prefix=dict(features='towers/video.h5'))
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
