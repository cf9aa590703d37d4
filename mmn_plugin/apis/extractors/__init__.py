"""Feature extractors that a config can name."""

from .build_extractor import build_extractor, extractor_config
from .clip_feature_extractor import ClipFeatureExtractor
from .extractor_registry import EXTRACTORS
from .hugging_face_feature_extractor import HuggingFaceFeatureExtractor
from .matching_extractor import matching_extractor
from .recognizer_feature_extractor import RecognizerFeatureExtractor

__all__ = [
    'EXTRACTORS',
    'ClipFeatureExtractor',
    'HuggingFaceFeatureExtractor',
    'RecognizerFeatureExtractor',
    'build_extractor',
    'extractor_config',
    'matching_extractor',
]
