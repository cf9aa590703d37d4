# TACoS: C3D fc6 features, one row per clip; annotations in frames.
dataset_type = 'TemporalGroundingDataset'
data_root = 'data/tacos/'
features = 'tall_c3d_features.hdf5'
num_segments = 256

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=num_segments),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    type=dataset_type,
    data_root=data_root,
    data_prefix=dict(features=features),
    pipeline=pipeline)

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.json', **dataset))
val_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='val.json', test_mode=True, **dataset))
test_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='test.json', test_mode=True, **dataset))

val_evaluator = dict(type='GroundingMetric', top_n=(1, 5), iou_thrs=(0.1, 0.3, 0.5))
test_evaluator = val_evaluator
