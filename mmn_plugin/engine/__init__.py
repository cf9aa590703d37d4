"""Parts of a run."""

from .amp import (
    AmpTestLoop,
    AmpValLoop,
    CPUAmpOptimWrapper,
    add_amp,
    apply_amp,
    apply_test_amp,
)
from .checkpoint_files import (
    PARTIAL,
    AtomicLocalBackend,
    CheckpointWriteError,
    TrainingRecord,
    WorkFolderInUseError,
    damage,
    make_plain,
    newest_checkpoint,
    plain,
    restore_histories,
    write_atomically,
)
from .checkpointing import SafeCheckpointHook
from .dist import broadcast_statistics
from .identity import (
    CheckpointIdentity,
    CheckpointIdentityHook,
    CheckpointWeightsHook,
    checkpoint_config,
    require_plain_types,
)
from .loss_check import LossCheck
from .preemption import PreemptionHook
from .resume import ResumableTrainLoop
from .schedules import ContrastStageHook, CrossVideoNegativeHook, FreezeLanguageModelHook
from .start_checks import StartHook, check_datasets, check_settings
from .visualization_hook import GroundingVisualizationHook

__all__ = [
    'PARTIAL',
    'AmpTestLoop',
    'AmpValLoop',
    'AtomicLocalBackend',
    'CPUAmpOptimWrapper',
    'CheckpointIdentity',
    'CheckpointIdentityHook',
    'CheckpointWeightsHook',
    'CheckpointWriteError',
    'ContrastStageHook',
    'CrossVideoNegativeHook',
    'FreezeLanguageModelHook',
    'GroundingVisualizationHook',
    'LossCheck',
    'PreemptionHook',
    'ResumableTrainLoop',
    'SafeCheckpointHook',
    'StartHook',
    'TrainingRecord',
    'WorkFolderInUseError',
    'add_amp',
    'apply_amp',
    'apply_test_amp',
    'broadcast_statistics',
    'check_datasets',
    'check_settings',
    'checkpoint_config',
    'damage',
    'make_plain',
    'newest_checkpoint',
    'plain',
    'require_plain_types',
    'restore_histories',
    'write_atomically',
]
