"""From videos to features: reading and writing videos."""

from .video import (
    VIDEO_SUFFIXES,
    RGBVideoReader,
    VideoInfo,
    VideoReader,
    probe_video,
    read_pictures,
    sample_frames,
)
from .video_stream import VideoLimitError, VideoReadError
from .video_writing import VideoWriter, cut_clip, webvtt

__all__ = [
    'VIDEO_SUFFIXES',
    'RGBVideoReader',
    'VideoInfo',
    'VideoLimitError',
    'VideoReadError',
    'VideoReader',
    'VideoWriter',
    'cut_clip',
    'probe_video',
    'read_pictures',
    'sample_frames',
    'webvtt',
]
