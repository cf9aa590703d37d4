"""Losses."""
from .iou_regression_loss import IoURegressionLoss
from .mutual_matching_loss import MutualMatchingLoss

__all__ = ['IoURegressionLoss', 'MutualMatchingLoss']
