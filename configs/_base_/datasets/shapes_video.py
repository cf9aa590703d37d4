# Shapes with features of the small VideoPrism of configs/shapes_towers/video.py: windows of 5
# frames in 2 s, in the space shared with its text (64 numbers), twice a second.
_base_ = 'shapes.py'

extractor = dict(
    _delete_=True,
    type='DualTower',
    model='data/shapes/towers/video',
    fps=2.0,
    clip_len=5,
)

dataset = dict(data_prefix=dict(features='towers/video.h5'))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
