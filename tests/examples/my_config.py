# A method and a dataset of its own; loops, hooks and metric are those of mmn_plugin.
_base_ = [
    'mmn_plugin::_base_/datasets/temporal_grounding.py',
    'mmn_plugin::_base_/schedules/mmn_adamw.py',
    'mmn_plugin::_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmn_plugin', 'my_project'], allow_failed_imports=False)

pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=16),
    dict(type='PackGroundingInputs'),
]
data = dict(
    type='TableDataset',
    data_root='data/mine/',
    data_prefix=dict(features='features.h5'),
    pipeline=pipeline,
)
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, dataset=dict(ann_file='train.csv', **data))
val_dataloader = dict(**loader, dataset=dict(ann_file='val.csv', **data))
test_dataloader = dict(**loader, dataset=dict(ann_file='test.csv', **data))

vocab = 'data/mine/vocab.txt'
model = dict(
    type='BoundaryLocalizer',
    grid=dict(num_clips=8, pooling_counts=[7]),
    data_preprocessor=dict(
        type='GroundingDataPreprocessor', tokenizer=dict(type='SentenceTokenizer', vocab=vocab)
    ),
    backbone=dict(type='ClipEncoder', in_channels=12, out_channels=16, kernel_size=2, stride=2),
    neck=dict(type='BoundaryNeck', channels=16, embed_channels=16),
    text_encoder=dict(
        type='SentenceEncoder',
        embed_channels=16,
        spaces=['contrastive'],
        config=dict(
            model_type='distilbert', vocab_size=64, dim=16, n_heads=2, n_layers=1, hidden_dim=32
        ),
    ),
    head=dict(
        type='SoftMatchingHead', loss=dict(type='SoftMatchingLoss'), nms_threshold=0.5, top_n=5
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=1)
