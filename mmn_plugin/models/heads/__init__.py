"""Heads."""
from .mutual_matching_head import MutualMatchingHead
from .tube_matching_head import TubeMatchingHead

__all__ = ['MutualMatchingHead', 'TubeMatchingHead']
