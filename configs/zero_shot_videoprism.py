# Zero-shot grounding by VideoPrism LvT base, which sees windows of 4 s and so tells entering from
# leaving: 248 million weights (994 MB), Apache 2.0. Features for a test on Charades-STA:
#     mmn extract data/charades_sta/videos --config zero_shot_videoprism.py \
#         --out data/charades_sta/videoprism_base.h5
_base_ = [
    '_base_/datasets/charades_zero_shot.py',
    '_base_/models/zero_shot.py',
    '_base_/default_runtime.py',
    'extractors/videoprism_base.py',
]

model = dict(tower={{_base_.extractor}})

dataset = dict(data_prefix=dict(features='videoprism_base.h5'))
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
