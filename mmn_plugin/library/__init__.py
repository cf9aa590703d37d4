"""A library of videos that sentences are searched in."""

from .adding import LibraryReport
from .answers import Hit
from .hits import Hits, Score, brute_force
from .library import MomentLibrary
from .moment_store import MomentStore, Snapshot, StoredVideo, VideoRow
from .packing import write_segment
from .search import ExactSearch
from .segment import Segment, SegmentWriter
from .store import FolderStore

__all__ = [
    'ExactSearch',
    'FolderStore',
    'Hit',
    'Hits',
    'LibraryReport',
    'MomentLibrary',
    'MomentStore',
    'Score',
    'Segment',
    'SegmentWriter',
    'Snapshot',
    'StoredVideo',
    'VideoRow',
    'brute_force',
    'write_segment',
]
