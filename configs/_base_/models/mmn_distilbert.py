# MMN with the sizes that are the same for all three benchmarks.
hidden_channels = 512
embed_channels = 256

model = dict(
    type='MMN',
    data_preprocessor=dict(
        type='GroundingDataPreprocessor',
        tokenizer=dict(type='SentenceTokenizer', name_or_path='distilbert-base-uncased'),
    ),
    backbone=dict(type='ClipEncoder', out_channels=hidden_channels),
    neck=dict(
        type='MomentMapNeck',
        channels=hidden_channels,
        embed_channels=embed_channels,
        moment_map=dict(type='MomentMapPool'),
        conv_mode='auto',
    ),  # 'dense', 'sparse', 'strips': the same result to rounding
    text_encoder=dict(
        type='SentenceEncoder',
        embed_channels=embed_channels,
        name_or_path='distilbert-base-uncased',
    ),
    head=dict(
        type='MutualMatchingHead',
        loss_matching=dict(
            type='MutualMatchingLoss',
            num_positive=1,
            negative_iou=0.5,
            sentence_removal_iou=0.5,
            temperature_video=0.1,
            temperature_sentence=0.1,
        ),
        loss_iou=dict(type='IoURegressionLoss'),
        top_n=5,
    ),
)
