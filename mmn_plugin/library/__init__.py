"""A library of videos that sentences are searched in."""

from .moment_store import MomentStore, Snapshot, StoredVideo, VideoRow
from .segment import Segment, SegmentInfo, SegmentWriter, write_segment
from .store import FolderStore

__all__ = [
    'FolderStore',
    'MomentStore',
    'Segment',
    'SegmentInfo',
    'SegmentWriter',
    'Snapshot',
    'StoredVideo',
    'VideoRow',
    'write_segment',
]
