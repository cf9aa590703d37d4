# QVHighlights: CLIP (512) and SlowFast (2304) features, a row of each per clip of 2 s.
_base_ = 'temporal_grounding.py'

# No video is longer than 150 s; new ones that are, are looked at in windows of that length.
long_video = dict(window=150.0)

# Each source's rows are divided by their norm before they are joined. The longest videos have 75
# rows, so that a segment is a row; those of a shorter video are spread over all segments.
pool = dict(type='PoolClipFeatures', num_segments=75, clamp_last=False, source_sizes=(512, 2304))
pipeline = [dict(type='LoadClipFeatures'), pool, dict(type='PackGroundingInputs')]
# With the queries' lines, from which metric and submission have qid and truth.
test_pipeline = [
    dict(type='LoadClipFeatures'),
    pool,
    dict(type='PackGroundingInputs', meta_keys=('lines',)),
]
dataset = dict(
    type='QVHighlightsDataset',
    data_root='data/qvhighlights/',
    data_prefix=dict(features=['clip_features', 'slowfast_features']),
)

train_dataloader = dict(
    batch_size=48,
    dataset=dict(ann_file='highlight_train_release.jsonl', pipeline=pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=48,
    dataset=dict(ann_file='highlight_val_release.jsonl', pipeline=test_pipeline, **dataset),
)
test_dataloader = dict(
    batch_size=48,
    dataset=dict(ann_file='highlight_test_with_gt.jsonl', pipeline=test_pipeline, **dataset),
)

val_evaluator = dict(_delete_=True, type='QVHighlightsMetric')
test_evaluator = dict(_delete_=True, type='QVHighlightsMetric')
del pool, pipeline, test_pipeline, dataset
