# Charades-STA for methods without training; the features are a config's own.
_base_ = 'charades_sta.py'

# A clip of 1 to 3 s: what is looked at at once is not bound to a training.
long_video = dict(window=64.0, longest=96.0)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=32, clamp_last=False),
    dict(type='PackGroundingInputs'),
]
train_dataloader = None
val_dataloader = dict(dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
del pipeline
