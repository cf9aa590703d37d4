"""Heads."""
from .mutual_matching_head import MutualMatchingHead
from .score_curve_head import ScoreCurveHead

__all__ = ['MutualMatchingHead', 'ScoreCurveHead']
