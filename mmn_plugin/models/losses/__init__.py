"""Losses."""
from .iou_regression_loss import IoURegressionLoss
from .mutual_matching_loss import MutualMatchingLoss
from .tube_matching_loss import TubeMatchingLoss

__all__ = ['IoURegressionLoss', 'MutualMatchingLoss', 'TubeMatchingLoss']
