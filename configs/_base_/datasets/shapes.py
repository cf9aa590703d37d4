# Shapes: the corpus that tools/data/make_shapes.py renders; features of the grid extractor.
_base_ = 'temporal_grounding.py'

# Longer videos are looked at in windows as long as the videos of training.
long_video = dict(window=24.0)

# What made the features, with the settings of mmn extract; for new videos.
extractor = dict(type='GridFeatureExtractor', fps=8.0, stride=6)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=32),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    data_root='data/shapes/', data_prefix=dict(features='features.h5'), pipeline=pipeline
)

train_dataloader = dict(batch_size=16, dataset=dict(ann_file='annotations/train.json', **dataset))
val_dataloader = dict(batch_size=16, dataset=dict(ann_file='annotations/val.json', **dataset))
test_dataloader = dict(batch_size=16, dataset=dict(ann_file='annotations/test.json', **dataset))
del pipeline, dataset
