"""Features on disk: HDF5 files and folders of arrays, which must not change while in use."""

import math
import os
import pickle
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mmn_plugin.errors import InputError, MissingFileError


class FeatureError(InputError):
    """Features that cannot be used; the message names file and video and says what to do.

    Args:
        message (str): For the user.
        kind (str): What kind of fault it is, for tables. Defaults to 'unreadable features'.
    """

    def __init__(self, message: str, kind: str = 'unreadable features'):
        super().__init__(message)
        self.kind = kind


def file_version(path: str | Path) -> tuple[int, ...]:
    """Size, time of change in nanoseconds, and place on the disk of a file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def change_of(where: str | Path, path: Path | None, version: Sequence[int]) -> str | None:
    """Message on a file (None: not there any more) that is not of a version any more, or None."""
    how = 'removed'
    try:
        if path is not None and file_version(path) == tuple(version):
            return None
        how = 'removed' if path is None else 'replaced or changed'
    except FileNotFoundError:
        pass
    except OSError:  # a moment's failure of the disk is left to the read
        return None
    return (
        f'{where} was {how} while it was in use: what was read before came from another '
        'version. Let the writing finish, and resume from a checkpoint that was saved before '
        'it, or train anew'
    )


def describe_folder(path: str | Path) -> str:
    """What lies in the nearest existing folder above a path, as one sentence for messages."""
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name + '/' * entry.is_dir() for entry in os.scandir(folder))
    if not names:
        return f'{folder} is empty'
    more = f' and {len(names) - 10} more' if len(names) > 10 else ''
    return f'{folder} holds {", ".join(names[:10])}{more}'


class HDF5File:
    """An HDF5 file that several processes read.

    It is opened at the first read and stays open in that process. The handle belongs to the process
    that opened it: a forked worker opens its own, and a pickled copy carries none.

    Attributes:
        version (tuple[int, ...]): What the file was when this was made, see `file_version`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.version = file_version(self.path)
        self._handle: h5py.File | None = None
        self._owner: int | None = None

    def file(self) -> h5py.File:
        """The open file."""
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = h5py.File(self.path, 'r'), os.getpid()
        return self._handle

    def close(self) -> None:
        """Close this process's handle; the next read opens the file again."""
        if self._handle is not None and self._owner == os.getpid():
            self._handle.close()
        self._handle = None

    def change(self, version: Sequence[int] | None = None) -> str | None:
        """Message on a file that is not of a version any more, by default its first; or None."""
        return change_of(self.path, self.path, version or self.version)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_handle': None, '_owner': None}


class FeatureStore(ABC):
    """Features of many videos, each (T, D), under one path.

    A store is small: it holds a path, and nothing open that would travel to another process.

    A file that is replaced, written to or removed while it is in use is an error, for a run would
    otherwise train on two versions of its features. Before and after every read its version is
    compared with the one that the caller gives or, without it, that the store found first.

    Args:
        path (str | Path): Feature file or folder.
        feature_key (str, optional): Name of a video's features where its entry holds several
            arrays. Defaults to None: the entry is the array.

    Raises:
        FileNotFoundError: If there is nothing at the path; the message lists what is beside it.
    """

    def __init__(self, path: str | Path, feature_key: str | None = None):
        self.path = Path(path)
        self.feature_key = feature_key
        if not self.path.exists():
            raise MissingFileError(
                f'features {self.path} do not exist; correct data_root or data_prefix.features in '
                f'the config, or get them as tools/data/ describes. {describe_folder(self.path)}'
            )

    @abstractmethod
    def video_ids(self) -> set[str]:
        """Ids of all videos in the store, from its listing alone."""

    @abstractmethod
    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of a video's features, without reading them where the format allows it."""

    @abstractmethod
    def video_version(self, video_id: str) -> tuple[int, ...]:
        """What changes when the file of a video's features does; see `file_version`."""

    @abstractmethod
    def change(self, video_id: str, version: Sequence[int] | None = None) -> str | None:
        """Message on a video's file that has changed since `video_version` (or first) saw it."""

    @abstractmethod
    def _read_array(self, video_id: str) -> np.ndarray:
        """The video's array as it is stored."""

    def close(self) -> None:  # noqa: B027  (a folder holds nothing open)
        """Let go of whatever this process holds open; the next read opens it again."""

    def read(self, video_id: str, version: Sequence[int] | None = None) -> np.ndarray:
        """Read the features of one video.

        Args:
            video_id (str): The video.
            version (Sequence[int], optional): What `video_version` gave, here or in another
                process. Defaults to None: what this store found first.

        Returns:
            np.ndarray: (T, D) float32, T and D at least 1, all finite.

        Raises:
            FeatureError: If the video is absent, its file has changed, its entry cannot be read, is
                not an array of numbers of rank 2, is empty, or holds NaN or Inf.
        """
        self._require_same(video_id, version)
        try:
            array = self._read_array(video_id)
        finally:  # what a file that is being written to gives may look damaged
            self._require_same(video_id, version)
        where = self.where(video_id)
        if array.dtype.kind not in 'fiu':
            raise FeatureError(
                f'{where} holds {array.dtype} values; features must be numbers. '
                'Extract or convert the file again',
                'features are not numbers',
            )
        self.check_shape(video_id, array.shape)
        array = np.ascontiguousarray(array, dtype=np.float32)
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise FeatureError(
                f'{where} holds NaN or Inf in {len(bad)} of {len(array)} rows (first: row '
                f'{bad[0]}). Extract this video again, or remove it from the annotations',
                'NaN or Inf in features',
            )
        return array

    def _require_same(self, video_id: str, version: Sequence[int] | None) -> None:
        if message := self.change(video_id, version):
            raise FeatureError(message, 'features changed while in use')

    def check_shape(self, video_id: str, shape: tuple[int, ...]) -> None:
        """Refuse what is not (T, D) with at least one row and one column.

        Raises:
            FeatureError: Naming file, video and shape.
        """
        if len(shape) != 2 or 0 in shape:
            raise FeatureError(
                f'{self.where(video_id)} has shape {tuple(shape)}; features must be (T, D), one '
                'row per clip. Extract this video again, or remove it from the annotations',
                'features not of rank 2' if len(shape) != 2 else 'empty features',
            )

    def where(self, video_id: str) -> str:
        """File and video, for messages."""
        return f'{self.path}: video {video_id!r}'

    def absent(self, video_id: str) -> FeatureError:
        """The error of a video that the store does not have."""
        return FeatureError(
            f'{self.where(video_id)} is not in the features. Extract it, or remove it from the '
            'annotations; `mmn check` lists all that are missing',
            'video without features',
        )


class FolderFeatureStore(FeatureStore):
    """A folder of ``<video id>.npy``, ``.pt``, ``.pth`` or ``.npz`` files.

    A file holds one array, or several by name: then it is the one under ``feature_key``, else that
    under ``features``, else the only one. Nothing that could run code is loaded: NumPy reads
    without pickle, PyTorch with ``weights_only=True``.

    Every file has a version of its own. Which file is a video's may change too, where another of
    the same name with an earlier one of the suffixes appears.

    Args:
        path (str | Path): Folder.
        feature_key (str, optional): Name of the array in files of several. Defaults to None.
    """

    SUFFIXES = ('.npy', '.pt', '.pth', '.npz')

    def __init__(self, path: str | Path, feature_key: str | None = None):
        super().__init__(path, feature_key)
        self._versions: dict[str, tuple[int, ...]] = {}  # where the caller knows none

    def video_ids(self) -> set[str]:
        """Names of all feature files, without their suffix."""
        names = (os.path.splitext(entry.name) for entry in os.scandir(self.path))
        return {stem for stem, suffix in names if suffix in self.SUFFIXES}

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of a video's features; of a ``.npy`` file only the header is read."""
        return self._read_array(video_id, mmap_mode='r').shape

    def video_version(self, video_id: str) -> tuple[int, ...]:
        """The version of the video's file, now."""
        return file_version(self._file(video_id))

    def change(self, video_id: str, version: Sequence[int] | None = None) -> str | None:
        """Message on a video's file that has changed."""
        version = version or self._versions.get(video_id)
        if version is None:
            self._versions[video_id] = self.video_version(video_id)
            return None
        return change_of(self.where(video_id), self._find(video_id), version)

    def _find(self, video_id: str) -> Path | None:
        paths = (self.path / f'{video_id}{suffix}' for suffix in self.SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def _file(self, video_id: str) -> Path:
        path = self._find(video_id)
        if path is None:
            raise self.absent(video_id)
        return path

    def _read_array(self, video_id: str, mmap_mode: str | None = None) -> np.ndarray:
        path = self._file(video_id)
        try:
            if path.suffix in ('.npy', '.npz'):
                content = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            else:
                content = torch.load(path, map_location='cpu', weights_only=True)
            if isinstance(content, Mapping):
                content = self._of_several(path, content)
            return tensor_to_array(content) if torch.is_tensor(content) else content
        except (
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            if isinstance(error, FeatureError):
                raise
            reason = str(error).split('\n', 1)[0]
            raise FeatureError(
                f'{path}: cannot read the features of video {video_id!r} ({reason}). The file is '
                'damaged or holds more than an array; download or extract it again'
            ) from error

    def _of_several(self, path: Path, content: Mapping) -> np.ndarray | torch.Tensor:
        """The features in an ``.npz`` file, or in a dict that PyTorch saved."""
        names = list(content)
        key = self.feature_key or (names[0] if len(names) == 1 else 'features')
        found = content.get(key)
        if not isinstance(found, np.ndarray | torch.Tensor):
            raise FeatureError(
                f'{path} holds {sorted(map(str, names))[:5]}, and no array under {key!r}; set '
                'feature_key in the dataset config to the name of the features'
            )
        return found


def tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor of any device, layout and precision, with gradients or without, as an array.

    Args:
        tensor (Tensor): Floating-point numbers become float32, since NumPy knows no bfloat16.
    """
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True)


class HDF5FeatureStore(HDF5File, FeatureStore):
    """One HDF5 file with an entry per video.

    The entry is the (T, D) array itself (TACoS, Charades-STA), or a group that holds it under
    ``feature_key`` (ActivityNet: ``<video>/c3d_features``). An array that was created and never
    written, or in part, is an error: HDF5 would give its fill value, zero, for what is not there. A
    read that fails is tried once more with a fresh handle, since network disks have such moments.

    The version is that of the file when the store is made, for all its videos.

    Args:
        path (str | Path): ``.hdf5`` or ``.h5`` file.
        feature_key (str, optional): Name of the array within a video's group. Defaults to None.
    """

    def __init__(self, path, feature_key: str | None = None):
        FeatureStore.__init__(self, path, feature_key)
        HDF5File.__init__(self, path)

    def video_ids(self) -> set[str]:
        """Ids of all entries of the file."""
        return self._retry('the list of videos', lambda: set(self.file().keys()))

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of a video's features, from the file's metadata."""
        return self._retry(f'video {video_id!r}', lambda: self._dataset(video_id).shape)

    def video_version(self, video_id: str) -> tuple[int, ...]:
        """The file's version when the store was made."""
        return self.version

    def change(self, video_id: str, version: Sequence[int] | None = None) -> str | None:
        """Message on a file that has changed."""
        return super().change(version)

    def _read_array(self, video_id: str) -> np.ndarray:
        return self._retry(f'video {video_id!r}', lambda: self._dataset(video_id)[()])

    def _dataset(self, video_id: str) -> h5py.Dataset:
        file, key = self.file(), self.feature_key
        if video_id not in file:
            raise self.absent(video_id)
        entry = found = file[video_id]
        if key is not None:
            found = entry.get(key) if isinstance(entry, h5py.Group) else None
        if not isinstance(found, h5py.Dataset):
            grouped = isinstance(entry, h5py.Group)
            what = f'a group that holds {sorted(entry)[:5]}' if grouped else 'an array'
            raise FeatureError(
                f'{self.where(video_id)} is {what}, but feature_key={key!r}; set it in the dataset '
                "config to the name of the group's array, or to None where there is no group"
            )
        require_written(found, self.where(video_id))
        return found

    def _retry(self, what: str, read: Callable[[], Any]) -> Any:
        """Read, and on a failure of file or disk once more with a fresh handle."""
        for last in (False, True):
            try:
                return read()
            except (OSError, RuntimeError, KeyError) as error:
                self._handle = None  # not closed: closing a broken handle can raise as well
                if last:
                    raise FeatureError(
                        f'{self.path}: cannot read {what} ({error}). The file is damaged, '
                        'incomplete or not HDF5: compare its size with the source and download or '
                        'extract it again'
                    ) from error


def require_written(dataset: h5py.Dataset, where: str) -> None:
    """Refuse an array of which HDF5 has stored nothing, or not every part; metadata tell it.

    Raises:
        FeatureError: Which names ``where``, the file and the video.
    """
    if dataset.is_virtual:
        return
    if dataset.shape is None or dataset.chunks is None:
        stored = int(dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED)
        parts = 0 if dataset.size == 0 else 1
    else:
        stored = dataset.id.get_num_chunks()
        parts = math.prod(map(math.ceil, np.divide(dataset.shape, dataset.chunks)))
    if stored < parts:
        what = f'was written in {stored} of {parts} chunks' if stored else 'was never written'
        raise FeatureError(
            f'{where} {what}: what is read of it is made up by HDF5. Extract this video again, or '
            'remove it from the annotations',
            'features partly written' if stored else 'features never written',
        )


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
