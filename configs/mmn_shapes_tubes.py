# Spatio-temporal grounding on Shapes: which object, where, and when. The candidate tubes of
# tools/data/make_shapes_tubes.py are off, broken, and beside distractors. Made to train in minutes
# on 2 CPU cores, in 2 processes of 8 videos.
_base_ = [
    '_base_/datasets/tubes.py',
    '_base_/models/mmn_tubes_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'], allow_failed_imports=False)

grid = dict(num_clips=16, pooling_counts=[15])

model = dict(
    data_preprocessor=dict(
        tokenizer=dict(_delete_=True, type='SentenceTokenizer', vocab='data/shapes/vocab.txt')
    ),
    backbone=dict(in_channels=51, out_channels=64),  # appearance 40, flow 11
    neck=dict(channels=64, embed_channels=64, kernel_size=3, num_layers=2),
    text_encoder=dict(
        _delete_=True,
        type='SentenceEncoder',
        embed_channels=64,
        # a small DistilBERT, trained from scratch
        config=dict(
            model_type='distilbert',
            vocab_size=512,
            dim=64,
            n_heads=4,
            n_layers=2,
            hidden_dim=128,
            max_position_embeddings=64,
        ),
    ),
    # several candidates may follow the same object, so that a good cell of another one is no
    # negative; the published loss takes it for one
    head=dict(loss_matching=dict(mask_same_video=True)),
)

# How new videos are tracked and described; the features are those of make_shapes_tubes.py.
tracker = dict(type='ShapesTracker')
extractor = dict(type='TubeFeatureExtractor', stride=4, margin=1.0, size=96)

dataset = dict(data_root='data/shapes_tubes/', streams=['appearance', 'flow'])
train_dataloader = dict(batch_size=8, dataset=dataset)
val_dataloader = dict(batch_size=8, dataset=dataset)
test_dataloader = dict(batch_size=8, dataset=dataset)
del dataset
# beside the figures: the best possible with these candidates, and a random tube and span
test_evaluator = dict(bounds=grid)

train_cfg = dict(max_epochs=6)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=1.0)))
)
param_scheduler = [dict(type='MultiStepLR', milestones=[4], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best='tubes/m_vIoU'),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=0),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=6),
)

model_wrapper_cfg = dict(find_unused_parameters=False)  # nothing is ever frozen here
auto_scale_lr = dict(base_batch_size=16, enable=False)
randomness = dict(seed=0)
