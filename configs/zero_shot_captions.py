# Zero-shot grounding on ActivityNet's captions: real language and no video (see
# _base_/datasets/captions.py). The tower has a text side alone, all-MiniLM-L6-v2 (22.7 million
# weights, 91 MB, Apache-2.0); what it says of videos comes from a file. Score, weights and the
# correction of length were chosen on validation: docs/zero_shot.md.
_base_ = [
    '_base_/datasets/captions.py',
    '_base_/models/zero_shot.py',
    '_base_/default_runtime.py',
]

grid = dict(num_clips=32, pooling_counts=[31])

model = dict(
    grid=dict(_delete_=True, **grid),
    tower=dict(type='TextTower', model='sentence-transformers/all-MiniLM-L6-v2'),
    head=dict(
        score=dict(_delete_=True, type='rise', rise=0.5, steadiness=0.5, mean=1.0),
        length_weight=0.1,
    ),
)

train_dataloader = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
