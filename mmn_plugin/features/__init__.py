"""From videos to features."""

from .dual_tower import DualTower
from .extraction import ExtractionReport, extract_videos, find_videos
from .extractor import (
    EXTRACTORS,
    FeatureExtractor,
    SlidingWindowExtractor,
    build_extractor,
    extractor_config,
)
from .feature_file import FeatureFile, FeatureFileError
from .hugging_face import HuggingFaceFeatureExtractor
from .processes import run_parallel
from .recognizer import RecognizerFeatureExtractor
from .rewriting import Rewriter
from .text_tower import SentenceTower, TextTower
from .video import (
    VIDEO_SUFFIXES,
    RGBVideoReader,
    VideoInfo,
    VideoReader,
    probe_video,
    read_pictures,
    sample_frames,
    sliding_windows,
)
from .video_stream import VideoLimitError, VideoReadError
from .video_writing import VideoWriter, cut_clip, webvtt

__all__ = [
    'EXTRACTORS',
    'VIDEO_SUFFIXES',
    'DualTower',
    'ExtractionReport',
    'FeatureExtractor',
    'FeatureFile',
    'FeatureFileError',
    'HuggingFaceFeatureExtractor',
    'RGBVideoReader',
    'RecognizerFeatureExtractor',
    'Rewriter',
    'SentenceTower',
    'SlidingWindowExtractor',
    'TextTower',
    'VideoInfo',
    'VideoLimitError',
    'VideoReadError',
    'VideoReader',
    'VideoWriter',
    'build_extractor',
    'cut_clip',
    'extract_videos',
    'extractor_config',
    'find_videos',
    'probe_video',
    'read_pictures',
    'run_parallel',
    'sample_frames',
    'sliding_windows',
    'webvtt',
]
