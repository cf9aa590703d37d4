# MMN on Shapes: made to train in minutes on 2 CPU cores, in 2 processes of 16 videos.
_base_ = [
    '_base_/datasets/shapes.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'], allow_failed_imports=False)

grid = dict(num_clips=16, pooling_counts=[15])
nms_threshold = 0.5

model = dict(
    data_preprocessor=dict(
        tokenizer=dict(_delete_=True, type='SentenceTokenizer', vocab='data/shapes/vocab.txt')
    ),
    grid=grid,
    backbone=dict(in_channels=174, out_channels=64, kernel_size=2, stride=2),
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
    head=dict(
        loss_matching=dict(margin=0.3),
        loss_iou=dict(min_iou=0.3, max_iou=0.9),
        contrastive_weight=0.1,
        score_power=0.5,
        window_score_power=4.0,
        nms_threshold=nms_threshold,
    ),
)

# Searching many videos at once: chosen on validation, `tools/reproduce.py library` and
# `library_presence`.
library = dict(score_power=16.0, presence_threshold=0.9959)

# Beside the figures of all sentences: those whose combination of color, shape and action never
# occurs in training, and the level of a random ranking.
test_evaluator = dict(
    duration_buckets=(),
    subsets='data/shapes/annotations/test_subsets.json',
    chance=dict(iou_threshold=nms_threshold, **grid),
)

train_cfg = dict(max_epochs=15)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=1.0)))
)
param_scheduler = [dict(type='MultiStepLR', milestones=[9, 13], gamma=0.1)]
default_hooks = dict(
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=0),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=15),
)

model_wrapper_cfg = dict(find_unused_parameters=False)  # nothing is ever frozen here
auto_scale_lr = dict(base_batch_size=32, enable=False)
randomness = dict(seed=0)
