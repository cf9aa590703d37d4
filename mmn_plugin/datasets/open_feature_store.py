"""Choose the reader for a path with features."""

import os
from pathlib import Path

from .feature_error import FeatureError
from .feature_store import FeatureStore
from .folder_feature_store import FolderFeatureStore
from .hdf5_feature_store import HDF5FeatureStore


def open_feature_store(
    path: str | bytes | os.PathLike, feature_key: str | None = None
) -> FeatureStore:
    """Reader of the features at a path: a folder of files, or an HDF5 file.

    Args:
        path (str | bytes | PathLike): Folder of ``.npy``, ``.npz`` or ``.pt`` files, or an HDF5
            file.
        feature_key (str, optional): See `FeatureStore`. Defaults to None.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        FeatureError: If it is a single file of such a kind or a pickle, which holds one video.
    """
    path = Path(os.fsdecode(path))
    if path.is_dir():
        return FolderFeatureStore(path, feature_key)
    if path.suffix in (*FolderFeatureStore.SUFFIXES, '.pkl', '.pickle'):
        raise FeatureError(
            f'{path} is not a feature store; data_prefix.features must name an HDF5 '
            'file, or a folder of .npy, .npz or .pt files, one per video'
        )
    return HDF5FeatureStore(path, feature_key)
