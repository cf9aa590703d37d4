"""Annotations and features of temporal grounding, one sample per video."""

from .checks import (
    CheckReport,
    Finding,
    check_annotations,
    check_config,
    check_features,
    check_sentences,
    check_splits,
    check_tubes,
)
from .feature_cache import CachedClipFeatures, FeatureCache, FolderFeatureCache, MemoryFeatureCache
from .feature_store import (
    FeatureError,
    FeatureStore,
    FolderFeatureStore,
    HDF5FeatureStore,
    open_feature_store,
    write_random_features,
)
from .grounding_dataset import TemporalGroundingDataset, stack_videos
from .hcstvg import read_hcstvg_annotations, read_tracks
from .transforms import (
    LoadClipFeatures,
    LoadTubes,
    PackGroundingInputs,
    PackTubeInputs,
    PoolClipFeatures,
    PoolTubeFeatures,
)
from .tube_dataset import TubeGroundingDataset, grounds_tubes
from .tube_file import TubeError, TubeFile, TubeVideo, check_frames, write_tube_file

__all__ = [
    'CachedClipFeatures',
    'CheckReport',
    'FeatureCache',
    'FeatureError',
    'FeatureStore',
    'Finding',
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
    'TubeError',
    'TubeFile',
    'TubeGroundingDataset',
    'TubeVideo',
    'check_annotations',
    'check_config',
    'check_features',
    'check_frames',
    'check_sentences',
    'check_splits',
    'check_tubes',
    'grounds_tubes',
    'open_feature_store',
    'read_hcstvg_annotations',
    'read_tracks',
    'stack_videos',
    'write_random_features',
    'write_tube_file',
]
