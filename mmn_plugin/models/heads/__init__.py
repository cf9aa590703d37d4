"""Heads."""
from .mutual_matching_head import MutualMatchingHead

__all__ = ['MutualMatchingHead']
