# MMN on ActivityNet's captions (real language and no video) without timestamps: moments to train
# with come from the order of a video's sentences and from where its features change. Numbers were
# chosen on validation: docs/weak_supervision.md.
_base_ = 'mmn_captions.py'

model = dict(head=dict(tower_weight=4.0, expected_iou_power=1.0))
library = dict(_delete_=True)  # was chosen with timestamps

train_pipeline = [
    dict(type='LoadClipFeatures'),
    dict(type='PoolClipFeatures', num_segments=64, clamp_last=False),
    dict(type='MomentsInOrder', num_clips=32, change_weight=0.5, end_change=0.5),
    dict(type='PackGroundingInputs'),
]
train_dataloader = dict(dataset=dict(weak=True, pipeline=train_pipeline))
