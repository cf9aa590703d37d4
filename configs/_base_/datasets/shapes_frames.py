# Shapes with features of the small CLIP of configs/shapes_towers/frames.py: each frame by itself,
# in the space shared with its text (64 numbers), twice a second.
_base_ = 'shapes.py'

extractor = dict(_delete_=True, type='DualTower', model='data/shapes/towers/frames', fps=2.0)

dataset = dict(data_prefix=dict(features='towers/frames.h5'))
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset
