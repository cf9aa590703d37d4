# ActivityNet Captions: C3D features reduced to 500 by PCA.
_base_ = 'temporal_grounding.py'

# Videos longer than any of training are looked at in windows of the mean length of those.
long_video = dict(window=117.0, longest=756.0)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=256),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    data_root='data/activitynet/',
    data_prefix=dict(features='sub_activitynet_v1-3.c3d.hdf5'),
    feature_key='c3d_features',
    pipeline=pipeline,
)

train_dataloader = dict(batch_size=8, dataset=dataset)
val_dataloader = dict(batch_size=8, dataset=dataset)
test_dataloader = dict(batch_size=8, dataset=dataset)
del pipeline, dataset
