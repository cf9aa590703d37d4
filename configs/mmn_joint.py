# One MMN on Charades-STA, ActivityNet Captions and TACoS, whose features come from one extractor:
# those of mmn_charades_siglip2.py, mmn_activitynet_siglip2.py and mmn_tacos_siglip2.py.
# Settings are ActivityNet Captions', the largest corpus', but for the grid; none was tuned on these
# features. The batch size is per GPU, for 6 GPUs; see mmn_activitynet.py.
_base_ = [
    '_base_/datasets/temporal_grounding.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
    'extractors/siglip2_base_p16_224.py',
]

# One grid serves videos of half a minute (Charades-STA) and of ten (TACoS): that of TACoS, 128
# clips whatever the length. A clip of a video of 30 s is a quarter of a second, less than the
# features resolve, and of one of 10 min 5 s, less than most moments there. Longer videos than any
# of training are looked at in windows.
long_video = dict(window=224.0, longest=1403.0)

model = dict(
    grid=dict(num_clips=128, pooling_counts=[15, 8, 8, 8]),
    backbone=dict(in_channels=768, kernel_size=2, stride=2),
    neck=dict(kernel_size=5, num_layers=8),
    tower={{_base_.extractor}},  # for head.tower_weight above 0, to be chosen on validation
    head=dict(
        loss_matching=dict(margin=0.3),
        loss_iou=dict(min_iou=0.5, max_iou=1.0),
        contrastive_weight=0.1,
        score_power=0.5,
        nms_threshold=0.5,
        tower_weight=0.0,
    ),
)

dataset = dict(
    type='TemporalGroundingDataset',
    data_prefix=dict(features='siglip2_base_p16_224.h5'),
    pipeline=[
        dict(type='LoadClipFeatures'),
        dict(type='PoolClipFeatures', num_segments=256),
        dict(type='PackGroundingInputs'),
    ],
)
charades = dict(dataset, corpus='charades', data_root='data/charades_sta/')
activitynet = dict(dataset, corpus='activitynet', data_root='data/activitynet/')
tacos = dict(dataset, corpus='tacos', data_root='data/tacos/')

# A third of an epoch's sentences from each corpus: 8,548, 5,315 and 152 videos.
train_dataloader = dict(
    batch_size=8,
    sampler=dict(
        _delete_=True, type='CorpusSampler', shares=dict(charades=1, activitynet=1, tacos=1)
    ),
    dataset=dict(
        _delete_=True,
        type='JointDataset',
        datasets=[
            dict(charades, ann_file='train.json'),
            dict(activitynet, ann_file='train.json'),
            dict(tacos, ann_file='train.json'),
        ],
    ),
)
# Charades-STA has no validation split, so that the best checkpoint is chosen without it.
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        type='JointDataset',
        datasets=[
            dict(activitynet, ann_file='val.json', test_mode=True),
            dict(tacos, ann_file='val.json', test_mode=True),
        ],
    ),
)
test_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        type='JointDataset',
        datasets=[
            dict(charades, ann_file='test.json', test_mode=True),
            dict(activitynet, ann_file='test.json', test_mode=True),
            dict(tacos, ann_file='test.json', test_mode=True),
        ],
    ),
)
del dataset, charades, activitynet, tacos

# Thresholds of all three benchmarks; figures of each, and their mean.
val_evaluator = dict(iou_thrs=(0.1, 0.3, 0.5, 0.7))
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=8e-4))
train_cfg = dict(max_epochs=18)
param_scheduler = [dict(type='MultiStepLR', milestones=[7, 15], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best='grounding/mean/R1@0.5'),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=4),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=6),
)

auto_scale_lr = dict(base_batch_size=48, enable=False)
