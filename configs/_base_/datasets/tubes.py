# What datasets of tubes have in common: HDF5 files that tools/data/ makes; a batch is a list of
# videos, since each has its own number of tubes.
pipeline = [
    dict(type='LoadTubes'),
    dict(type='PoolTubeFeatures', num_segments=32),
    dict(type='PackTubeInputs'),
]
dataset = dict(type='TubeGroundingDataset', pipeline=pipeline)
workers = dict(num_workers=2, persistent_workers=True, pin_memory=True)

train_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.h5', **dataset),
)
val_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='val.h5', test_mode=True, **dataset),
)
test_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='test.h5', test_mode=True, **dataset),
)

val_evaluator = dict(type='TubeGroundingMetric', iou_thrs=(0.3, 0.5))
test_evaluator = val_evaluator
del pipeline, dataset, workers  # names that a config which inherits may want
