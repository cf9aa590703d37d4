# Multi-scale self-contrast with the settings that are the same for all datasets. The paper's own
# numbers are not published: these were chosen on Shapes' validation split.
hidden_channels = 512
embed_channels = 256

model = dict(
    type='MSCL',
    data_preprocessor=dict(
        type='GroundingDataPreprocessor',
        tokenizer=dict(type='SentenceTokenizer', name_or_path='distilbert-base-uncased'),
    ),
    backbone=dict(type='ClipEncoder', out_channels=hidden_channels),
    neck=dict(
        type='FrameNeck',
        channels=hidden_channels,
        embed_channels=embed_channels,
        kernel_size=3,
        num_layers=2,
    ),
    text_encoder=dict(
        type='SentenceEncoder',
        embed_channels=embed_channels,
        name_or_path='distilbert-base-uncased',
        spaces=('contrastive',),
    ),
    head=dict(
        type='ScoreCurveHead',
        loss_matching=dict(
            type='VideoMatchingLoss', temperature=0.1, top_share=0.4, pooling_temperature=0.1
        ),
        loss_contrast=dict(
            type='SelfContrastLoss',
            temperature=0.1,
            threshold=0.85,
            background=0.6,
            num_hard=4,
            sentence_weight=1.0,
            prototype_weight=0.0,
        ),
        windows=(8, 4, 2, 1),  # clips; coarse to fine
        contrast_weight=0.5,
        # the first one gives most moments, the others more answers around them
        run_thresholds=(0.8, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95),
        threshold_halving=0.3,
        # a video with the same sentence is no negative
        negatives=dict(exclude_same_text=True),
        nms_threshold=0.7,
        top_n=5,
    ),
)
