# MMN on Shapes with the features of the small VideoPrism of configs/shapes_towers/video.py, whose
# own space is a third one: made to train in minutes in one process.
_base_ = 'mmn_shapes.py'

tower = dict(type='DualTower', model='data/shapes/towers/video', fps=2.0, clip_len=5)
extractor = dict(_delete_=True, **tower)

model = dict(
    backbone=dict(in_channels=64),
    tower=tower,
    # the best of tools/reproduce.py shapes_towers on validation
    head=dict(tower_weight=1.0),
)

dataset = dict(data_prefix=dict(features='towers/video.h5'))
train_dataloader = dict(batch_size=32, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del tower, dataset
