"""Heads."""

from .base_head import BaseHead
from .mutual_matching_head import MutualMatchingHead
from .score_curve_head import ScoreCurveHead
from .tube_matching_head import TubeMatchingHead
from .zero_shot_head import ZeroShotHead

__all__ = [
    'BaseHead',
    'MutualMatchingHead',
    'ScoreCurveHead',
    'TubeMatchingHead',
    'ZeroShotHead',
]
