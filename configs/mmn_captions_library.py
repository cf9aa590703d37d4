# MMN on ActivityNet's captions to be searched in a library of many videos: the contrastive space
# begins as the tower's, which tells videos apart. What each of these settings gives is measured in
# docs/negatives.md; an epoch that trains the language model takes three times as long.
_base_ = 'mmn_captions.py'

model = dict(
    backbone=dict(keep_features=True),
    neck=dict(embed_channels=384, features=384),
    text_encoder=dict(embed_channels=384, identity=True, frozen=False),
    head=dict(loss_matching=dict(temperature_video=0.05, temperature_sentence=0.05)),
)
library = dict(score_power=32.0, tower_weight=16.0)  # chosen on validation, seed 0

train_cfg = dict(max_epochs=5)  # the language model overfits after four
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=5, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(negatives=dict(full_through_epoch=5))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(bert=dict(lr_mult=0.1))))
