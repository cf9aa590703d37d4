# Weakly-supervised grounding on ActivityNet's captions, real language and no video (see
# _base_/datasets/captions.py): training sees no timestamp. It begins with the space of the sentence
# encoder that made the features, all-MiniLM-L6-v2 (22.7 million weights, 91 MB, Apache-2.0), and
# refines it by contrast within each video. All numbers were chosen on validation, and what did
# harm there is left out: docs/weak_supervision.md.
_base_ = [
    '_base_/datasets/captions.py',
    '_base_/models/mscl_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

# Which sentence belongs to which video, and never when. Validation and test need timestamps.
train_dataloader = dict(dataset=dict(weak=True))

encoder = 'sentence-transformers/all-MiniLM-L6-v2'
num_clips = 32
nms_threshold = 0.5

model = dict(
    num_clips=num_clips,
    data_preprocessor=dict(tokenizer=dict(name_or_path=encoder)),
    backbone=dict(_delete_=True, type='ClipMeans', in_channels=384, kernel_size=2, stride=2),
    neck=dict(channels=384, embed_channels=384, num_layers=0, identity=True),
    text_encoder=dict(embed_channels=384, name_or_path=encoder, frozen=True, identity=True),
    head=dict(
        windows=(2, 1),
        loss_contrast=dict(threshold=0.7, background=0.5, num_hard=None, sentence_weight=2.0),
        contrast_weight=1.0,
        run_thresholds=None,  # all stretches of clips
        around_weight=0.25,
        length_weight=0.04,
        nms_threshold=nms_threshold,
    ),
)

# beside the figures: the level of a random ranking
test_evaluator = dict(
    chance=dict(num_clips=num_clips, pooling_counts=[num_clips - 1], iou_threshold=nms_threshold)
)

train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(custom_keys=dict(_delete_=True)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(
    stages=dict(type='ContrastStageHook', from_epochs=[1, 1]),
    # without the objective of whole videos: it unlearns to tell parts of a video apart
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=0, late_factor=0.0),
)

model_wrapper_cfg = dict(find_unused_parameters=False)  # nothing is frozen but the whole encoder
auto_scale_lr = dict(base_batch_size=32, enable=False)
randomness = dict(seed=0)
