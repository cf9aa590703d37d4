# TACoS: C3D fc6 features, one row per clip; annotations in frames.
_base_ = 'temporal_grounding.py'

# Videos longer than any of training are looked at in windows of the mean length of those.
long_video = dict(window=224.0, longest=1403.0)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=256),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    data_root='data/tacos/', data_prefix=dict(features='tall_c3d_features.hdf5'), pipeline=pipeline
)

train_dataloader = dict(batch_size=2, dataset=dataset)
val_dataloader = dict(batch_size=2, dataset=dataset)
test_dataloader = dict(batch_size=2, dataset=dataset)

val_evaluator = dict(iou_thrs=(0.1, 0.3, 0.5))
test_evaluator = val_evaluator
del pipeline, dataset
