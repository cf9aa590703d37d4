"""Parts of a run."""

from .amp import AmpTestLoop, AmpValLoop, CPUAmpOptimWrapper, add_amp, apply_amp, apply_test_amp
from .checkpoint_files import AtomicLocalBackend, TrainingRecord, WorkFolderInUseError
from .checkpointing import SafeCheckpointHook
from .identity import (
    CheckpointIdentity,
    CheckpointIdentityHook,
    CheckpointWeightsHook,
    check_weights,
    checkpoint_config,
    require_plain_types,
)
from .loss_check import LossCheck
from .optim import GroupedOptimWrapperConstructor
from .preemption import Preempted, PreemptionHook
from .resume import ResumableTrainLoop
from .schedules import (
    ContrastStageHook,
    CrossVideoNegativeHook,
    FreezeLanguageModelHook,
    SimilarVideoHook,
)
from .start_checks import StartHook, build_runner
from .visualization_hook import GroundingVisualizationHook

__all__ = [
    'AmpTestLoop',
    'AmpValLoop',
    'AtomicLocalBackend',
    'CPUAmpOptimWrapper',
    'CheckpointIdentity',
    'CheckpointIdentityHook',
    'CheckpointWeightsHook',
    'ContrastStageHook',
    'CrossVideoNegativeHook',
    'FreezeLanguageModelHook',
    'GroundingVisualizationHook',
    'GroupedOptimWrapperConstructor',
    'LossCheck',
    'Preempted',
    'PreemptionHook',
    'ResumableTrainLoop',
    'SafeCheckpointHook',
    'SimilarVideoHook',
    'StartHook',
    'TrainingRecord',
    'WorkFolderInUseError',
    'add_amp',
    'apply_amp',
    'apply_test_amp',
    'build_runner',
    'check_weights',
    'checkpoint_config',
    'require_plain_types',
]
