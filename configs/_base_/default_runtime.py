# What every run shares: registration, hooks, logging.
default_scope = 'mmaction'
custom_imports = dict(imports=['mmn_plugin'], allow_failed_imports=False)

default_hooks = dict(
    start=dict(type='StartHook'),  # env_cfg.allow_tf32, and checks before a run begins
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # A kill costs at most so many minutes, or one epoch where that takes longer. interval=1 makes
    # a checkpoint of every epoch; iter_interval=N adds one every N iterations (epochs of hours).
    checkpoint=dict(
        type='SafeCheckpointHook',
        interval=None,
        minutes=10,
        iter_interval=0,
        save_best='grounding/R1@0.5',
        rule='greater',
        max_keep_ckpts=3,
    ),
    preemption=dict(type='PreemptionHook'),  # SIGTERM, Ctrl-C: save and stop
    sampler_seed=dict(type='DistSamplerSeedHook'),
    identity=dict(type='CheckpointIdentityHook'),  # what a checkpoint belongs to
)

env_cfg = dict(
    # Every batch of a config has the same shape. For the same bits again on a GPU set it to False,
    # with randomness=dict(seed=0, deterministic=True); the fastest kernel is chosen by the clock.
    cudnn_benchmark=True,
    allow_tf32=False,  # True: on GPUs float32 products and convolutions with factors of 10 bits
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)  # gloo where there is no GPU

# The language model has no gradients while it is frozen; see FreezeLanguageModelHook.
model_wrapper_cfg = dict(
    type='MMDistributedDataParallel', find_unused_parameters=True, broadcast_buffers=False
)

# For TensorBoard or Weights & Biases put TensorboardVisBackend or WandbVisBackend here.
visualizer = dict(type='GroundingVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
