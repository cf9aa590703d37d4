# Zero-shot grounding by CLIP ViT-B/32, the historical baseline: 151 million weights (605 MB), MIT.
# Features for a test on Charades-STA:
#     mmn extract data/charades_sta/videos --config zero_shot_clip.py \
#         --out data/charades_sta/clip_vit_b32.h5
_base_ = [
    '_base_/datasets/charades_zero_shot.py',
    '_base_/models/zero_shot.py',
    '_base_/default_runtime.py',
    'extractors/clip_vit_b32.py',
]

# Cosines of CLIP with its text are higher than those of towers that were trained with a sigmoid.
model = dict(tower={{_base_.extractor}}, head=dict(center=0.13))

dataset = dict(data_prefix=dict(features='clip_vit_b32.h5'))
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
