"""Annotations and features of temporal grounding, one sample per video."""

from .check_report import CheckReport, Finding
from .checks import check_config
from .feature_store import (
    FeatureError,
    FeatureStore,
    FolderFeatureStore,
    HDF5FeatureStore,
    open_feature_store,
)
from .grounding_dataset import (
    JointDataset,
    TemporalGroundingDataset,
    TubeGroundingDataset,
    dataset_class,
    grounds_tubes,
    single_configs,
    stack_videos,
)
from .hcstvg import read_hcstvg_annotations, read_tracks
from .qvhighlights import QVHighlightsDataset
from .samplers import CorpusSampler, SimilarVideoSampler
from .transforms import (
    LoadClipFeatures,
    LoadTubes,
    MomentsInOrder,
    PackGroundingInputs,
    PackTubeInputs,
    PoolClipFeatures,
    PoolTubeFeatures,
)
from .tube_file import TubeError, TubeFile, TubeVideo, check_frames, write_tube_file

__all__ = [
    'CheckReport',
    'CorpusSampler',
    'FeatureError',
    'FeatureStore',
    'Finding',
    'FolderFeatureStore',
    'HDF5FeatureStore',
    'JointDataset',
    'LoadClipFeatures',
    'LoadTubes',
    'MomentsInOrder',
    'PackGroundingInputs',
    'PackTubeInputs',
    'PoolClipFeatures',
    'PoolTubeFeatures',
    'QVHighlightsDataset',
    'SimilarVideoSampler',
    'TemporalGroundingDataset',
    'TubeError',
    'TubeFile',
    'TubeGroundingDataset',
    'TubeVideo',
    'check_config',
    'check_frames',
    'dataset_class',
    'grounds_tubes',
    'open_feature_store',
    'read_hcstvg_annotations',
    'read_tracks',
    'single_configs',
    'stack_videos',
    'write_tube_file',
]
