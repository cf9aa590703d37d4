"""Clip encoders."""

from .clip_encoder import ClipEncoder

__all__ = ['ClipEncoder']
