# Shapes: the corpus that tools/data/make_shapes.py renders; features of the grid extractor.
dataset_type = 'TemporalGroundingDataset'
data_root = 'data/shapes/'
features = 'features.h5'
num_segments = 32
# What made the features, with the settings of tools/data/extract_features.py; for new videos.
extractor = dict(type='GridFeatureExtractor', fps=8., stride=6)

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
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='annotations/train.json', **dataset))
val_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/val.json', test_mode=True, **dataset))
test_dataloader = dict(
    batch_size=16,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/test.json', test_mode=True, **dataset))

val_evaluator = dict(type='GroundingMetric', top_n=(1, 5), iou_thrs=(0.3, 0.5, 0.7))
test_evaluator = val_evaluator
