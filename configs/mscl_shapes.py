# Weakly-supervised grounding on Shapes: training sees no timestamp. Made to train in a minute or
# two on one CPU core, 32 videos a step.
_base_ = [
    '_base_/datasets/shapes.py',
    '_base_/models/mscl_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmn_plugin', 'mmn_plugin.shapes'], allow_failed_imports=False)

# A score curve is of the whole video, however long.
long_video = dict(_delete_=True)

# Which sentence belongs to which video, and never when. Validation and test need timestamps.
train_dataloader = dict(batch_size=32, dataset=dict(weak=True))

num_clips = 32
nms_threshold = 0.7

model = dict(
    num_clips=num_clips,
    data_preprocessor=dict(
        tokenizer=dict(_delete_=True, type='SentenceTokenizer', vocab='data/shapes/vocab.txt')
    ),
    backbone=dict(in_channels=174, out_channels=128, kernel_size=1, stride=1),
    neck=dict(channels=128, embed_channels=64),
    text_encoder=dict(
        _delete_=True,
        type='SentenceEncoder',
        embed_channels=64,
        spaces=('contrastive',),
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
    head=dict(nms_threshold=nms_threshold),
)

# Beside the figures of all sentences: those whose combination of color, shape and action never
# occurs in training, and the level of a random ranking.
test_evaluator = dict(
    duration_buckets=(),
    subsets='data/shapes/annotations/test_subsets.json',
    chance=dict(num_clips=num_clips, pooling_counts=[num_clips - 1], iou_threshold=nms_threshold),
)

train_cfg = dict(max_epochs=16)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=1.0)))
)
param_scheduler = [dict(type='MultiStepLR', milestones=[10, 14], gamma=0.1)]
default_hooks = dict(
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=0),
    stages=dict(type='ContrastStageHook', from_epochs=[3, 3, 4, 4]),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=16),
)

auto_scale_lr = dict(base_batch_size=32, enable=False)
randomness = dict(seed=0)
