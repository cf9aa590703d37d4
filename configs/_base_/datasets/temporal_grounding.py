# What the datasets have in common. A dataset's own file says where its data lie, how many
# videos a batch holds, and its pipeline: into how many rows (R) a video's features are pooled.
dataset = dict(type='TemporalGroundingDataset')
workers = dict(
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,  # copies to a GPU need not be waited for; without one it does nothing
    collate_fn=dict(type='stack_videos'),
)  # a batch's features travel as one tensor

train_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='train.json', **dataset),
)
val_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='val.json', test_mode=True, **dataset),
)
test_dataloader = dict(
    **workers,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='test.json', test_mode=True, **dataset),
)

val_evaluator = dict(type='GroundingMetric', top_n=(1, 5), iou_thrs=(0.3, 0.5, 0.7))
test_evaluator = val_evaluator
del dataset, workers  # names that a config which inherits may want
