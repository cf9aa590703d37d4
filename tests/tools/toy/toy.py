default_scope = 'mmaction'
custom_imports = dict(imports=['toy_project'])
model = dict(type='ToyModel')
loader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='ToyDataset'),
    collate_fn=dict(type='pseudo_collate'),
)
train_dataloader = dict(loader, sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = test_dataloader = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='ToyMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
find_unused_parameters = True
