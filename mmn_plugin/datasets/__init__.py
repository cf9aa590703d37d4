"""Annotations and features of temporal grounding, one sample per video."""
from .feature_error import FeatureError
from .feature_store import FeatureStore
from .folder_feature_store import FolderFeatureStore
from .hdf5_feature_store import HDF5FeatureStore
from .open_feature_store import open_feature_store
from .temporal_grounding_dataset import TemporalGroundingDataset
from .transforms import LoadClipFeatures, PackGroundingInputs, PoolClipFeatures
from .write_random_features import write_random_features

__all__ = [
    'FeatureError', 'FeatureStore', 'FolderFeatureStore', 'HDF5FeatureStore', 'LoadClipFeatures',
    'PackGroundingInputs', 'PoolClipFeatures', 'TemporalGroundingDataset', 'open_feature_store',
    'write_random_features'
]
