# MMN on Charades-STA with features of SigLIP 2, made from the videos by
#     mmn extract data/charades_sta/videos \
#         --config mmn_charades_siglip2.py --out data/charades_sta/siglip2_base_p16_224.h5
# All else is as published for other features, and untuned for these.
_base_ = ['mmn_charades.py', 'extractors/siglip2_base_p16_224.py']

model = dict(
    backbone=dict(in_channels=768),
    # The tower's own space: 0 is MMN's score alone, and then the tower is needed for extraction
    # only. To be chosen on validation (docs/zero_shot.md).
    tower={{_base_.extractor}},
    head=dict(tower_weight=0.0),
)

dataset = dict(data_prefix=dict(features='siglip2_base_p16_224.h5'))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
