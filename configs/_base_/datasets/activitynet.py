# ActivityNet Captions: C3D features reduced to 500 by PCA.
dataset_type = 'TemporalGroundingDataset'
data_root = 'data/activitynet/'
features = 'sub_activitynet_v1-3.c3d.hdf5'
feature_key = 'c3d_features'
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
    feature_key=feature_key,
    pipeline=pipeline)

train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.json', **dataset))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='val.json', test_mode=True, **dataset))
test_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='test.json', test_mode=True, **dataset))

val_evaluator = dict(type='GroundingMetric', top_n=(1, 5), iou_thrs=(0.3, 0.5, 0.7))
test_evaluator = val_evaluator
