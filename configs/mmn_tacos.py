# MMN on TACoS, as published: 2 GPUs, 4 videos in all.
# The batch size here is per GPU. On another number of GPUs either keep the total of 4
# (train_dataloader.batch_size = 4 / GPUs), or let the learning rate follow the total:
# tools/train.py --auto-scale-lr multiplies it by total / 4. Negatives come from the videos of
# one GPU's batch, as published, so fewer videos per GPU mean fewer negatives; scope='global' in
# model.head.negatives takes them from all GPUs.
_base_ = [
    '_base_/datasets/tacos.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

model = dict(
    grid=dict(num_clips=128, pooling_counts=[15, 8, 8, 8]),
    backbone=dict(in_channels=4096, kernel_size=2, stride=2),
    neck=dict(kernel_size=5, num_layers=8),
    head=dict(
        loss_matching=dict(num_positive=3, margin=0.1),
        loss_iou=dict(min_iou=0.3, max_iou=0.7),
        contrastive_weight=0.1,
        score_power=0.3,
        nms_threshold=0.4,
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
train_cfg = dict(max_epochs=250)
param_scheduler = [dict(type='MultiStepLR', milestones=[130, 190], gamma=0.1)]
default_hooks = dict(
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=40),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=100),
)

auto_scale_lr = dict(base_batch_size=4, enable=False)
