# HC-STVG: CSN and flow I3D features of person tubes. The test split serves as validation.
_base_ = 'tubes.py'

dataset = dict(data_root='data/hcstvg/', streams=['csn', 'i3d'])

train_dataloader = dict(batch_size=4, dataset=dataset)
val_dataloader = dict(batch_size=4, dataset=dict(ann_file='test.h5', **dataset))
test_dataloader = dict(batch_size=4, dataset=dataset)
del dataset
