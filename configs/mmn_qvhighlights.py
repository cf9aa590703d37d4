# MMN on QVHighlights, where a query has one or several moments. MMN has not been published for it:
# settings are ActivityNet Captions', but for the grid and what the metric needs; none was tuned.
# The batch size is for one GPU; see mmn_activitynet.py.
_base_ = [
    '_base_/datasets/qvhighlights.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

model = dict(
    # Annotators chose clips of 2 s, and 97% of the videos last 150 s: with 75 clips moments begin
    # and end where the truth can. Up to 31 clips every moment exists, longer ones begin and end at
    # every second clip; 99.4% of the true windows of training then have a moment of IoU >= 0.9, as
    # with all moments, which are a third more.
    grid=dict(num_clips=75, pooling_counts=[30, 22]),
    backbone=dict(in_channels=2816, kernel_size=1, stride=1),
    neck=dict(kernel_size=9, num_layers=4),
    head=dict(
        loss_matching=dict(margin=0.3),
        loss_iou=dict(min_iou=0.5, max_iou=1.0),
        contrastive_weight=0.1,
        score_power=0.5,
        nms_threshold=0.5,
        top_n=10,  # windows of a query that mAP takes
        curves=True,  # the saliency of clips
    ),
)

optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=18)
param_scheduler = [dict(type='MultiStepLR', milestones=[7, 15], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best='qvhighlights/MR-full-mAP'),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=4),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=6),
)

auto_scale_lr = dict(base_batch_size=48, enable=False)
