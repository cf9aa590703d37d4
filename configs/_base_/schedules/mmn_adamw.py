# Optimizer of the published code; learning rate, epochs and milestones are per dataset.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', betas=(0.9, 0.99), weight_decay=1e-5),
    clip_grad=dict(max_norm=5),
    constructor='GroupedOptimWrapperConstructor',  # few groups; AdamW is fused where it can be
    paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=0.1))),
)

# bad_loss='skip' leaves a batch with a NaN or infinite loss or gradient out instead of stopping.
train_cfg = dict(type='ResumableTrainLoop', val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
