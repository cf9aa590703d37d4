"""Clip features from videos."""
from .extract_videos import extract_videos, find_videos
from .feature_file import FeatureFile
from .feature_file_error import FeatureFileError
from .grid_feature_extractor import GridFeatureExtractor
from .parallel import run_parallel
from .video_read_error import VideoReadError
from .video_reader import VideoReader

__all__ = ['FeatureFile', 'FeatureFileError', 'GridFeatureExtractor', 'VideoReadError',
           'VideoReader', 'extract_videos', 'find_videos', 'run_parallel']
