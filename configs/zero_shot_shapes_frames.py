# Zero-shot grounding on Shapes by a small CLIP (configs/shapes_towers/frames.py).
_base_ = [
    '_base_/datasets/shapes_frames.py',
    '_base_/models/zero_shot.py',
    '_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'], allow_failed_imports=False)

grid = dict(num_clips=16, pooling_counts=[15])
nms_threshold = 0.5

model = dict(
    grid=grid,
    tower={{_base_.extractor}},
    # Score and length correction: the best of tools/reproduce.py shapes_towers on validation.
    head=dict(
        score=dict(_delete_=True, type='rise', rise=0.1, steadiness=1.0, mean=0.0),
        length_weight=0.02,
        nms_threshold=nms_threshold,
    ),
)

train_dataloader = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
test_evaluator = dict(
    duration_buckets=(),
    subsets='data/shapes/annotations/test_subsets.json',
    chance=dict(iou_threshold=nms_threshold, **grid),
)
