"""A library of videos that sentences are searched in."""

from .segment import Segment, SegmentInfo, SegmentWriter, write_segment

__all__ = ['Segment', 'SegmentInfo', 'SegmentWriter', 'write_segment']
