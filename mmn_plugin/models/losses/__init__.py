"""Losses."""

from .iou_regression_loss import IoURegressionLoss
from .mutual_matching_loss import MutualMatchingLoss
from .self_contrast_loss import SelfContrastLoss
from .tube_matching_loss import TubeMatchingLoss
from .video_matching_loss import VideoMatchingLoss

__all__ = [
    'IoURegressionLoss',
    'MutualMatchingLoss',
    'SelfContrastLoss',
    'TubeMatchingLoss',
    'VideoMatchingLoss',
]
