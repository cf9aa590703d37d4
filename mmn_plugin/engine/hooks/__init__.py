"""Hooks."""

from .architecture_hook import ArchitectureHook
from .broadcast_buffers_hook import BroadcastBuffersHook
from .check_features_hook import CheckFeaturesHook
from .check_loss_hook import CheckLossHook
from .check_settings_hook import CheckSettingsHook
from .contrast_stage_hook import ContrastStageHook
from .cross_video_negative_hook import CrossVideoNegativeHook
from .extractor_hook import ExtractorHook
from .freeze_language_model_hook import FreezeLanguageModelHook
from .grounding_visualization_hook import GroundingVisualizationHook
from .preemption_hook import PreemptionHook
from .run_state_hook import RunStateHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .tokenizer_hook import TokenizerHook

__all__ = [
    'ArchitectureHook',
    'BroadcastBuffersHook',
    'CheckFeaturesHook',
    'CheckLossHook',
    'CheckSettingsHook',
    'ContrastStageHook',
    'CrossVideoNegativeHook',
    'ExtractorHook',
    'FreezeLanguageModelHook',
    'GroundingVisualizationHook',
    'PreemptionHook',
    'RunStateHook',
    'SafeCheckpointHook',
    'TokenizerHook',
]
