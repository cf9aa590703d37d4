"""Clip features from videos."""
from .extract_videos import extract_videos, find_videos
from .extraction_report import ExtractionReport
from .feature_extractor import FeatureExtractor
from .feature_file import FeatureFile
from .feature_file_error import FeatureFileError
from .grid_feature_extractor import GridFeatureExtractor
from .parallel import run_parallel
from .rgb_video_reader import RGBVideoReader
from .sliding_windows import sliding_windows
from .video_read_error import VideoReadError
from .video_reader import VideoReader

__all__ = ['ExtractionReport', 'FeatureExtractor', 'FeatureFile', 'FeatureFileError',
           'GridFeatureExtractor', 'RGBVideoReader', 'VideoReadError', 'VideoReader',
           'extract_videos', 'find_videos', 'run_parallel', 'sliding_windows']
