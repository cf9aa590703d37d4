"""Parts of a run."""

from .amp import (
    AmpTestLoop,
    AmpValLoop,
    CPUAmpOptimWrapper,
    add_amp,
    apply_amp,
    apply_test_amp,
    explicit_amp,
)
from .checkpoint_files import (
    PARTIAL,
    AtomicLocalBackend,
    CheckpointWriteError,
    damage,
    make_plain,
    newest_checkpoint,
    plain,
    restore_histories,
    write_atomically,
)
from .checkpointing import SafeCheckpointHook
from .dist import BroadcastBuffersHook
from .identity import ArchitectureHook, CheckpointCheckHook, ExtractorHook, TokenizerHook
from .loss_check import CheckLossHook
from .preemption import PreemptionHook
from .resume import ResumableTrainLoop, RunStateHook
from .schedules import ContrastStageHook, CrossVideoNegativeHook, FreezeLanguageModelHook
from .start_checks import CheckFeaturesHook, CheckSettingsHook
from .visualization_hook import GroundingVisualizationHook
from .work_folder import TrainingRecord, WorkFolderInUseError, changed_settings

__all__ = [
    'PARTIAL',
    'AmpTestLoop',
    'AmpValLoop',
    'ArchitectureHook',
    'AtomicLocalBackend',
    'BroadcastBuffersHook',
    'CPUAmpOptimWrapper',
    'CheckFeaturesHook',
    'CheckLossHook',
    'CheckSettingsHook',
    'CheckpointCheckHook',
    'CheckpointWriteError',
    'ContrastStageHook',
    'CrossVideoNegativeHook',
    'ExtractorHook',
    'FreezeLanguageModelHook',
    'GroundingVisualizationHook',
    'PreemptionHook',
    'ResumableTrainLoop',
    'RunStateHook',
    'SafeCheckpointHook',
    'TokenizerHook',
    'TrainingRecord',
    'WorkFolderInUseError',
    'add_amp',
    'apply_amp',
    'apply_test_amp',
    'changed_settings',
    'damage',
    'explicit_amp',
    'make_plain',
    'newest_checkpoint',
    'plain',
    'restore_histories',
    'write_atomically',
]
