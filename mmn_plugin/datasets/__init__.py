"""Annotations and features of temporal grounding, one sample per video."""

from .checks import CheckReport, Finding, check_config
from .feature_store import (
    FeatureError,
    FeatureStore,
    FolderFeatureStore,
    HDF5FeatureStore,
    open_feature_store,
)
from .grounding_dataset import (
    TemporalGroundingDataset,
    TubeGroundingDataset,
    grounds_tubes,
    stack_videos,
)
from .hcstvg import read_hcstvg_annotations, read_tracks
from .prepare import write_random_features
from .transforms import (
    LoadClipFeatures,
    LoadTubes,
    PackGroundingInputs,
    PackTubeInputs,
    PoolClipFeatures,
    PoolTubeFeatures,
)
from .tube_file import TubeError, TubeFile, TubeVideo, check_frames, write_tube_file

__all__ = [
    'CheckReport',
    'FeatureError',
    'FeatureStore',
    'Finding',
    'FolderFeatureStore',
    'HDF5FeatureStore',
    'LoadClipFeatures',
    'LoadTubes',
    'PackGroundingInputs',
    'PackTubeInputs',
    'PoolClipFeatures',
    'PoolTubeFeatures',
    'TemporalGroundingDataset',
    'TubeError',
    'TubeFile',
    'TubeGroundingDataset',
    'TubeVideo',
    'check_config',
    'check_frames',
    'grounds_tubes',
    'open_feature_store',
    'read_hcstvg_annotations',
    'read_tracks',
    'stack_videos',
    'write_random_features',
    'write_tube_file',
]
