"""Tubes of boxes with sentences, in HDF5."""

from .hcstvg_annotations import read_hcstvg_annotations
from .read_tracks import read_tracks
from .tube_error import TubeError
from .tube_file import TubeFile
from .tube_video import TubeVideo, check_frames
from .write_tube_file import write_tube_file

__all__ = [
    'TubeError',
    'TubeFile',
    'TubeVideo',
    'check_frames',
    'read_hcstvg_annotations',
    'read_tracks',
    'write_tube_file',
]
