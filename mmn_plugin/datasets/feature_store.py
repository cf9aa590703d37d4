"""Features on disk: HDF5 files and folders of arrays."""

import math
import os
import pickle
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from mmn_plugin.errors import InputError, MissingFileError

from .hdf5_file import HDF5File, change_of, describe_folder, file_version


class FeatureError(InputError):
    """Features that cannot be used; the message names file and video and says what to do.

    Args:
        message (str): For the user.
        kind (str): What kind of fault it is, in a few words, for tables. Defaults to
            'unreadable features'.
    """

    def __init__(self, message: str, kind: str = 'unreadable features'):
        super().__init__(message)
        self.kind = kind


class FeatureStore(ABC):
    """Features of many videos, each (T, D), under one path.

    A store is small: it holds a path, and nothing open that would travel to another process.

    A file that is replaced, written to or removed while it is in use is an error, for a run would
    otherwise train on two versions of its features. Before and after every read its version (size,
    time of change, place on the disk) is compared with the one that the caller gives or, without
    it, that the store found first.

    Args:
        path (str | Path): Feature file or folder.
        feature_key (str, optional): Name under which a video's entry holds its features where they
            lie one level down. Defaults to None: the entry is the array.

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
        """Shape of a video's features, without reading them where the format allows it.

        Raises:
            FeatureError: If the video is absent or its entry cannot be opened.
        """

    @abstractmethod
    def _read_array(self, video_id: str) -> np.ndarray:
        """The video's array as it is stored."""

    @abstractmethod
    def video_version(self, video_id: str) -> tuple[int, ...]:
        """What changes when the file of a video's features does.

        Raises:
            FeatureError: If there is no such file.
        """

    @abstractmethod
    def check_version(self, video_id: str, version: Sequence[int] | None = None) -> None:
        """Refuse a file that has changed, after a look at its metadata alone.

        Args:
            video_id (str): The video.
            version (Sequence[int], optional): What `video_version` gave, here or in another
                process. Defaults to None: what this store found first.

        Raises:
            FeatureError: If the file was replaced, written to or removed since.
        """

    def close(self) -> None:  # noqa: B027  (most stores hold nothing open)
        """Let go of whatever this process holds open; the next read opens it again."""

    def read(self, video_id: str, version: Sequence[int] | None = None) -> np.ndarray:
        """Read the features of one video.

        Args:
            video_id (str): The video.
            version (Sequence[int], optional): See `check_version`. Defaults to None.

        Returns:
            np.ndarray: (T, D) float32, T and D at least 1, all finite.

        Raises:
            FeatureError: If the video is absent, its file has changed, its entry cannot be read, is
                not an array of numbers of rank 2, is empty, or holds NaN or Inf.
        """
        self.check_version(video_id, version)
        try:
            array = self._read_array(video_id)
        finally:  # what a file that is being written to gives may look damaged
            self.check_version(video_id, version)
        where = self.where(video_id)
        if array.dtype.kind not in 'fiu':
            raise FeatureError(
                f'{where} holds {array.dtype} values; features must be numbers. '
                'Extract or convert the file again',
                'features are not numbers',
            )
        self.check_shape(video_id, array.shape)
        array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
            raise FeatureError(
                f'{where} holds NaN or Inf in {len(bad)} of {len(array)} rows (first: row '
                f'{bad[0]}). Extract this video again, or remove it from the annotations',
                'NaN or Inf in features',
            )
        return array

    def check_shape(self, video_id: str, shape: tuple[int, ...]) -> None:
        """Refuse what is not (T, D) with at least one row and one column.

        Raises:
            FeatureError: Naming file, video and shape.
        """
        if len(shape) != 2:
            raise FeatureError(
                f'{self.where(video_id)} has shape {tuple(shape)}; features must be '
                '(T, D), one row per clip. Reshape or extract them again',
                'features not of rank 2',
            )
        if 0 in shape:
            raise FeatureError(
                f'{self.where(video_id)} is empty, shape {tuple(shape)}. Extract '
                'this video again, or remove it from the annotations',
                'empty features',
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

    A file holds one array. In an ``.npz`` file it is the one under ``feature_key``, else that under
    ``features``, else the only one; with ``feature_key`` a ``.pt`` file holds a dict with the
    tensor under that name. Nothing that could run code is loaded: NumPy reads without pickle,
    PyTorch with ``weights_only=True``.

    Every file has a version of its own. Which file is a video's may change too, where another of
    the same name with an earlier one of the suffixes appears.

    Args:
        path (str | Path): Folder.
        feature_key (str, optional): Name of the array in an ``.npz`` or ``.pt`` file. Defaults to
            None.

    Raises:
        FileNotFoundError: If the folder does not exist.
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
        path = self._find(video_id)
        if path is None:
            raise self.absent(video_id)
        return file_version(path)

    def check_version(self, video_id: str, version: Sequence[int] | None = None) -> None:
        """Refuse a video's file that has changed."""
        version = version or self._versions.get(video_id)
        if version is None:
            self._versions[video_id] = self.video_version(video_id)
            return
        if message := change_of(self.where(video_id), self._find(video_id), version):
            raise FeatureError(message, 'features changed while in use')

    def _read_array(self, video_id: str, mmap_mode: str | None = None) -> np.ndarray:
        path = self._find(video_id)
        if path is None:
            raise self.absent(video_id)
        try:
            if path.suffix in ('.npy', '.npz'):
                content = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
                return content if isinstance(content, np.ndarray) else self._only(path, content)
            return self._to_array(path, torch.load(path, map_location='cpu', weights_only=True))
        except FeatureError:
            raise
        except (
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            reason = str(error).split('\n', 1)[0]
            raise FeatureError(
                f'{path}: cannot read the features of video {video_id!r} ({reason}). The file is '
                'damaged or holds more than an array; download or extract it again'
            ) from error

    def _only(self, path: Path, archive: np.lib.npyio.NpzFile) -> np.ndarray:
        with archive:
            names = archive.files
            key = self.feature_key or (names[0] if len(names) == 1 else 'features')
            if key not in names:
                raise FeatureError(
                    f'{path} holds the arrays {sorted(names)[:5]}, none of them {key!r}; set '
                    'feature_key in the dataset config to the name of the features'
                )
            return np.asarray(archive[key])

    def _to_array(self, path: Path, content) -> np.ndarray:
        if self.feature_key is not None:
            if not isinstance(content, dict) or self.feature_key not in content:
                raise FeatureError(
                    f'{path} holds no dict with {self.feature_key!r}; correct '
                    'feature_key in the dataset config'
                )
            content = content[self.feature_key]
        if not isinstance(content, torch.Tensor):
            raise FeatureError(
                f'{path} holds a {type(content).__name__}, not a tensor; set '
                'feature_key in the dataset config, or save the tensor alone'
            )
        return tensor_to_array(content)

    def _find(self, video_id: str) -> Path | None:
        paths = (self.path / f'{video_id}{suffix}' for suffix in self.SUFFIXES)
        return next((path for path in paths if path.is_file()), None)


def tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor of any device, layout and precision, with gradients or without, as an array.

    Args:
        tensor (Tensor): Floating-point numbers become float32, since NumPy knows no bfloat16.
    """
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


class HDF5FeatureStore(HDF5File, FeatureStore):
    """One HDF5 file with an entry per video.

    The entry is the (T, D) array itself (TACoS, Charades-STA), or a group that holds it under
    ``feature_key`` (ActivityNet: ``<video>/c3d_features``).

    A read that fails is tried once more with a fresh handle, since network disks have such moments.

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
        FeatureStore.__init__(self, path, feature_key)
        HDF5File.__init__(self, path)

    def video_ids(self) -> set[str]:
        """Ids of all entries of the file."""
        return self._retry('the list of videos', lambda: set(self.file().keys()))

    def shape(self, video_id: str) -> tuple[int, ...]:
        """Shape of a video's features, from the file's metadata."""
        return self._retry(f'video {video_id!r}', lambda: self._written(video_id).shape)

    def video_version(self, video_id: str) -> tuple[int, ...]:
        """The file's version when the store was made."""
        return self.version

    def check_version(self, video_id: str, version: Sequence[int] | None = None) -> None:
        """Refuse a file that has changed."""
        if message := self.change(version):
            raise FeatureError(message, 'features changed while in use')

    def _read_array(self, video_id: str) -> np.ndarray:
        return self._retry(f'video {video_id!r}', lambda: self._written(video_id)[()])

    def _written(self, video_id: str) -> h5py.Dataset:
        dataset = self._dataset(video_id)
        require_written(dataset, self.where(video_id))
        return dataset

    def _dataset(self, video_id: str) -> h5py.Dataset:
        file = self.file()
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
