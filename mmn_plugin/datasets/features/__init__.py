"""Clip features from videos."""

from mmn_plugin.features import RGBVideoReader, VideoReader, VideoReadError

from .extract_videos import extract_videos, find_videos
from .extraction_report import ExtractionReport
from .feature_extractor import FeatureExtractor
from .feature_file import FeatureFile
from .feature_file_error import FeatureFileError
from .grid_feature_extractor import GridFeatureExtractor
from .parallel import run_parallel
from .sliding_windows import sliding_windows

__all__ = [
    'ExtractionReport',
    'FeatureExtractor',
    'FeatureFile',
    'FeatureFileError',
    'GridFeatureExtractor',
    'RGBVideoReader',
    'VideoReadError',
    'VideoReader',
    'extract_videos',
    'find_videos',
    'run_parallel',
    'sliding_windows',
]
