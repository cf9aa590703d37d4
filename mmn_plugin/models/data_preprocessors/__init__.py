"""Data preprocessors."""

from .grounding_data_preprocessor import GroundingDataPreprocessor
from .tube_data_preprocessor import TubeDataPreprocessor

__all__ = ['GroundingDataPreprocessor', 'TubeDataPreprocessor']
