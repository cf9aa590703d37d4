"""Features in an HDF5 file."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from .feature_error import FeatureError
from .feature_store import FeatureStore, change_of, file_version


class HDF5FeatureStore(FeatureStore):
    """One HDF5 file with an entry per video.

    The entry is the (T, D) array itself (TACoS, Charades-STA), or a group that holds it under
    ``feature_key`` (ActivityNet: ``<video>/c3d_features``).

    The file is opened at the first read and stays open in that process. The handle belongs to the
    process that opened it: a forked worker opens its own, and a pickled store carries none. A read
    that fails is tried once more with a fresh handle, since network disks have such moments.

    An array that was created and never written, or in part, is an error: HDF5 would give its fill
    value, zero, for what is not there.

    Its version is that of all its videos; the store looks at it when it is made.

    Args:
        path (str | Path): ``.hdf5`` or ``.h5`` file.
        feature_key (str, optional): Name of the array within a video's group. Defaults to None.

    Raises:
        FileNotFoundError: If the file does not exist.
    """

    def __init__(self, path, feature_key: str | None = None):
        super().__init__(path, feature_key)
        self._version = file_version(self.path)
        self._handle: h5py.File | None = None
        self._owner: int | None = None

    def video_ids(self) -> set[str]:
        """Ids of all entries of the file."""
        return self._retry('the list of videos', lambda: set(self._file().keys()))

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of a video's features, from the file's metadata."""
        return self._retry(f'video {video_id!r}', lambda: self._written(video_id).shape)

    def close(self) -> None:
        """Close this process's handle; the next read opens the file again."""
        if self._handle is not None and self._owner == os.getpid():
            self._handle.close()
        self._handle = None

    def video_version(self, video_id: str) -> tuple[int, ...]:
        """The file's version when the store was made."""
        return self._version

    def check_version(self, video_id: str, version: Sequence[int] | None = None) -> None:
        """Refuse a file that has changed."""
        message = change_of(self.path, self.path, version or self._version)
        if message:
            raise FeatureError(message, 'features changed while in use')

    def _read_array(self, video_id: str) -> np.ndarray:
        return self._retry(f'video {video_id!r}', lambda: self._written(video_id)[()])

    def _written(self, video_id: str) -> h5py.Dataset:
        dataset = self._dataset(video_id)
        require_written(dataset, self.where(video_id))
        return dataset

    def _file(self) -> h5py.File:
        if self._handle is None or self._owner != os.getpid():
            self._handle = h5py.File(self.path, 'r')
            self._owner = os.getpid()
        return self._handle

    def _dataset(self, video_id: str) -> h5py.Dataset:
        file = self._file()
        if video_id not in file:
            raise self.absent(video_id)
        entry = file[video_id]
        if self.feature_key is None:
            if isinstance(entry, h5py.Group):
                raise FeatureError(
                    f'{self.where(video_id)} is a group that holds {sorted(entry)[:5]}, not an '
                    'array; set feature_key in the dataset config to the name of its features'
                )
            return entry
        if isinstance(entry, h5py.Dataset):
            raise FeatureError(
                f'{self.where(video_id)} is an array, not a group with '
                f'{self.feature_key!r}; set feature_key=None in the dataset config'
            )
        if self.feature_key not in entry:
            raise FeatureError(
                f'{self.where(video_id)} has no {self.feature_key!r}; it holds '
                f'{sorted(entry)[:5]}. Correct feature_key in the dataset config'
            )
        entry = entry[self.feature_key]
        if not isinstance(entry, h5py.Dataset):
            raise FeatureError(
                f'{self.where(video_id)}: {self.feature_key!r} is not an array; '
                'correct feature_key in the dataset config'
            )
        return entry

    def _retry(self, what: str, read: Callable[[], Any]) -> Any:
        """Read, and on a failure of file or disk once more with a fresh handle."""
        try:
            return read()
        except (OSError, RuntimeError, KeyError):
            self._handle = None  # not closed: closing a broken handle can raise as well
        try:
            return read()
        except (OSError, RuntimeError, KeyError) as error:
            raise FeatureError(
                f'{self.path}: cannot read {what} ({error}). The file is damaged, incomplete or '
                'not HDF5: compare its size with the source and download or extract it again'
            ) from error

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_handle': None, '_owner': None}


def require_written(dataset: h5py.Dataset, where: str) -> None:
    """Refuse an array of which HDF5 has stored nothing, or not every part; metadata tell it.

    Args:
        dataset (h5py.Dataset): The array.
        where (str): File and video, for the message.

    Raises:
        FeatureError: If it was never written, or in part; or is empty.
    """
    if dataset.shape is None:
        raise FeatureError(
            f'{where} is empty, without a shape. Extract this video again, or '
            'remove it from the annotations',
            'empty features',
        )
    if dataset.is_virtual:
        return
    if dataset.chunks is None:
        stored = int(dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED)
        parts = min(dataset.size, 1)
    else:
        stored = dataset.id.get_num_chunks()
        parts = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
    if stored < parts:
        what, kind = 'was created, but never written', 'features never written'
        if stored:
            what, kind = f'was written in {stored} of {parts} chunks', 'features partly written'
        raise FeatureError(
            f'{where} {what}: what is read of it is made up by HDF5. Extract this '
            'video again, or remove it from the annotations',
            kind,
        )
