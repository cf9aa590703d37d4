"""Parts of a run."""

from .amp import AmpTestLoop, AmpValLoop, CPUAmpOptimWrapper, add_amp, apply_amp, apply_test_amp
from .checkpoint_files import AtomicLocalBackend, TrainingRecord, WorkFolderInUseError
from .checkpointing import SafeCheckpointHook
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
from .start_checks import StartHook
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
    'checkpoint_config',
    'require_plain_types',
]
