# Weakly-supervised grounding on Charades-STA: training sees no timestamp.
# The batch size is per GPU. Negatives of the video-level objective come from one GPU's batch;
# scope='global' in model.head.negatives takes them from all GPUs. The test split serves for
# validation, as it does for MMN: choose nothing on it, which is why no epoch counts as the best one
# (see mmn_charades.py).
_base_ = [
    '_base_/datasets/charades_sta.py',
    '_base_/models/mscl_distilbert.py',
    '_base_/schedules/mmn_adamw.py',
    '_base_/default_runtime.py',
]

# A score curve is of the whole video, however long.
long_video = dict(_delete_=True)

# Which sentence belongs to which video, and never when. Validation and test need timestamps.
train_dataloader = dict(dataset=dict(weak=True))

model = dict(num_clips=32, backbone=dict(in_channels=4096, kernel_size=1, stride=1))

optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_epochs=18)
param_scheduler = [dict(type='MultiStepLR', milestones=[10, 15], gamma=0.1)]
default_hooks = dict(
    checkpoint=dict(save_best=None),
    freeze_language_model=dict(type='FreezeLanguageModelHook', through_epoch=4),
    stages=dict(type='ContrastStageHook', from_epochs=[4, 5, 6, 7]),
    negatives=dict(type='CrossVideoNegativeHook', full_through_epoch=18),
)

auto_scale_lr = dict(base_batch_size=48, enable=False)
