"""Annotations and features of temporal grounding, one sample per video."""

import warnings

from .feature_cache import FeatureCache
from .feature_error import FeatureError
from .feature_store import FeatureStore
from .folder_feature_cache import FolderFeatureCache
from .folder_feature_store import FolderFeatureStore
from .hdf5_feature_store import HDF5FeatureStore
from .memory_feature_cache import MemoryFeatureCache
from .open_feature_store import open_feature_store
from .stack_videos import stack_videos
from .temporal_grounding_dataset import TemporalGroundingDataset
from .transforms import (
    LoadClipFeatures,
    LoadTubes,
    PackGroundingInputs,
    PackTubeInputs,
    PoolClipFeatures,
    PoolTubeFeatures,
)
from .tube_grounding_dataset import TubeGroundingDataset, grounds_tubes
from .write_random_features import write_random_features

__all__ = [
    'FeatureCache',
    'FeatureError',
    'FeatureStore',
    'FolderFeatureCache',
    'FolderFeatureStore',
    'HDF5FeatureStore',
    'LoadClipFeatures',
    'LoadTubes',
    'MemoryFeatureCache',
    'PackGroundingInputs',
    'PackTubeInputs',
    'PoolClipFeatures',
    'PoolTubeFeatures',
    'TemporalGroundingDataset',
    'TubeGroundingDataset',
    'grounds_tubes',
    'open_feature_store',
    'stack_videos',
    'write_random_features',
]

# Data loaders may ask for pinned memory; without a GPU PyTorch does not pin, and need not say so.
warnings.filterwarnings('ignore', message="'pin_memory' argument is set as true")
