# MMN on Charades-STA, as published: 4 GPUs, 48 videos in all.
# The batch size here is per GPU. On another number of GPUs either keep the total of 48
# (train_dataloader.batch_size = 48 / GPUs), or let the learning rate follow the total:
# tools/train.py --auto-scale-lr multiplies it by total / 48. Negatives come from the videos of
# one GPU's batch, as published, so fewer videos per GPU mean fewer negatives; scope='global' in
# model.head.negatives takes them from all GPUs.
# Charades-STA has no validation split: as published, the test split serves as one, so no epoch
# counts as the best one here. The published protocol takes the best epoch on the test split, which
# is optimistic: --cfg-options default_hooks.checkpoint.save_best=grounding/R1@0.5
_base_ = [
    '_base_/datasets/charades_sta.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

model = dict(
    grid=dict(num_clips=16, pooling_counts=[15]),
    backbone=dict(in_channels=4096, kernel_size=2, stride=2),
    neck=dict(kernel_size=5, num_layers=8),
    head=dict(
        loss_matching=dict(margin=0.4),
        loss_iou=dict(min_iou=0.5, max_iou=1.0),
        contrastive_weight=0.05,
        score_power=0.5,
        nms_threshold=0.5,
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_epochs=18)
param_scheduler = [dict(type='MultiStepLR', milestones=[8, 13], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best=None),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=4),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=7),
)

auto_scale_lr = dict(base_batch_size=48, enable=False)
