# MMN on tubes: every tube of a video has a moment map of its own.
_base_ = 'mmn_distilbert.py'

model = dict(
    data_preprocessor=dict(type='TubeDataPreprocessor'),
    grid=dict(num_clips=16, pooling_counts=[15]),
    backbone=dict(kernel_size=2, stride=2),
    head=dict(
        _delete_=True,
        type='TubeMatchingHead',
        loss_matching=dict(
            type='TubeMatchingLoss',
            negative_iou=0.5,
            margin=0.4,
            temperature_video=0.1,
            temperature_sentence=0.1,
        ),
        loss_iou=dict(type='IoURegressionLoss', min_iou=0.3, max_iou=0.9),
        contrastive_weight=0.1,
    ),
)
