# ActivityNet Captions without any video: the sentences of one annotator, embedded and laid over
# their spans, stand for a video, and the other annotator's sentences are asked. Made by
# tools/data/activitynet/make_caption_features.py.
_base_ = 'temporal_grounding.py'

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=64, clamp_last=False),
    dict(type='PackGroundingInputs'),
]
dataset = dict(
    data_root='data/captions/', data_prefix=dict(features='features.h5'), pipeline=pipeline
)

train_dataloader = dict(batch_size=32, dataset=dict(ann_file='annotations/train.json', **dataset))
val_dataloader = dict(batch_size=32, dataset=dict(ann_file='annotations/val.json', **dataset))
test_dataloader = dict(batch_size=32, dataset=dict(ann_file='annotations/test.json', **dataset))

test_evaluator = dict(duration_buckets=())
del pipeline, dataset
