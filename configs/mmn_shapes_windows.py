# MMN on Shapes whose events happen once or twice, with sentences about what does not happen
# (tools/data/make_shapes.py data/shapes_windows --videos 1000 --absent-and-repeated): made to train
# in minutes in one process.
_base_ = 'mmn_shapes.py'

library = dict(_delete_=True)  # was chosen for the other corpus

model = dict(data_preprocessor=dict(tokenizer=dict(vocab='data/shapes_windows/vocab.txt')))

dataset = dict(data_root='data/shapes_windows/')
train_dataloader = dict(batch_size=32, dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
del dataset

# Beside the figures of all sentences that have a moment: those with one and with two of them, and
# those whose combination of color, shape and action training shows, and never shows.
test_evaluator = dict(
    subsets='data/shapes_windows/annotations/test_subsets.json',
    # chosen on validation, mean of three trainings: tools/reproduce.py shapes_windows
    presence_threshold=0.751,
)

train_cfg = dict(max_epochs=20)
param_scheduler = [dict(type='MultiStepLR', milestones=[12, 17], gamma=0.1)]
default_hooks = dict(negatives=dict(full_through_epoch=20))
