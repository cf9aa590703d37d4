"""Losses."""

from .mutual_matching_loss import IoURegressionLoss, MutualMatchingLoss
from .self_contrast_loss import SelfContrastLoss, VideoMatchingLoss
from .tube_matching_loss import TubeMatchingLoss

__all__ = [
    'IoURegressionLoss',
    'MutualMatchingLoss',
    'SelfContrastLoss',
    'TubeMatchingLoss',
    'VideoMatchingLoss',
]
