# Zero-shot grounding by SigLIP 2, the frame tower to take today: 375 million weights (1.5 GB),
# Apache 2.0. Features for a test on Charades-STA:
#     mmn extract data/charades_sta/videos --config zero_shot_siglip2.py \
#         --out data/charades_sta/siglip2_base_p16_224.h5
# A frame does not tell entering from leaving: zero_shot_videoprism.py.
_base_ = [
    '_base_/datasets/charades_zero_shot.py',
    '_base_/models/zero_shot.py',
    '_base_/default_runtime.py',
    'extractors/siglip2_base_p16_224.py',
]

model = dict(tower={{_base_.extractor}})

dataset = dict(data_prefix=dict(features='siglip2_base_p16_224.h5'))
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
