# MMN on ActivityNet's captions: real language and no video (see _base_/datasets/captions.py). The
# sentence encoder, all-MiniLM-L6-v2 (22.7 million weights, 91 MB, Apache-2.0), is the tower that
# made the features as well. All numbers were chosen on validation: docs/zero_shot.md.
_base_ = [
    '_base_/datasets/captions.py',
    '_base_/models/mmn_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

encoder = 'sentence-transformers/all-MiniLM-L6-v2'
grid = dict(num_clips=16, pooling_counts=[15])
nms_threshold = 0.5

model = dict(
    data_preprocessor=dict(tokenizer=dict(name_or_path=encoder)),
    grid=grid,
    tower=dict(type='TextTower', model=encoder),
    backbone=dict(in_channels=384, out_channels=128, kernel_size=4, stride=4),
    neck=dict(channels=128, embed_channels=128, kernel_size=5, num_layers=2),
    text_encoder=dict(embed_channels=128, name_or_path=encoder, frozen=True),
    head=dict(
        loss_matching=dict(margin=0.3),
        loss_iou=dict(min_iou=0.5, max_iou=1.0),
        contrastive_weight=0.1,
        score_power=4.0,
        tower_weight=3.0,
        expected_iou_power=4.0,
        nms_threshold=nms_threshold,
    ),
)

library = dict(score_power=16.0, tower_weight=16.0)  # docs/library_evaluation.md

# beside the figures: the level of a random ranking
test_evaluator = dict(chance=dict(iou_threshold=nms_threshold, **grid))

train_cfg = dict(max_epochs=10)
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=10, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=10))

model_wrapper_cfg = dict(find_unused_parameters=False)  # nothing is frozen but the whole encoder
auto_scale_lr = dict(base_batch_size=32, enable=False)
randomness = dict(seed=0)
