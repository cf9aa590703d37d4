# MMN for spatio-temporal grounding on HC-STVG, as published: 8 GPUs, 32 videos in all.
# The batch size here is per GPU. On another number of GPUs either keep the total of 32
# (train_dataloader.batch_size = 32 / GPUs), or let the learning rate follow the total:
# tools/train.py --auto-scale-lr multiplies it by total / 32. Negatives are the tubes of one GPU's
# batch, as published.
# HC-STVG has no validation split: as published, the test split serves as one, so no epoch counts
# as the best one here. The published protocol takes the best epoch on the test split, which is
# optimistic: --cfg-options default_hooks.checkpoint.save_best=tubes/m_vIoU
_base_ = [
    '_base_/datasets/hcstvg.py',
    '_base_/models/mmn_tubes_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(in_channels=2048),  # CSN 1024, flow I3D 1024
    neck=dict(kernel_size=7, num_layers=4),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='MultiStepLR', milestones=[11, 16], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best=None),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=5),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=10),
)

auto_scale_lr = dict(base_batch_size=32, enable=False)
