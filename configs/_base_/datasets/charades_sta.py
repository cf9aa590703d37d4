# Charades-STA: VGG fc7 features. It has no validation split: as published, the test split
# serves as one.
_base_ = 'temporal_grounding.py'

# Videos longer than any of training are looked at in windows of the mean length of those.
long_video = dict(window=31.0, longest=195.0)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=32),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    data_root='data/charades_sta/',
    data_prefix=dict(features='vgg_rgb_features.hdf5'),
    pipeline=pipeline,
)

train_dataloader = dict(batch_size=12, dataset=dataset)
val_dataloader = dict(batch_size=12, dataset=dict(ann_file='test.json', **dataset))
test_dataloader = dict(batch_size=12, dataset=dataset)

val_evaluator = dict(iou_thrs=(0.5, 0.7))
test_evaluator = val_evaluator
del pipeline, dataset
