"""Features in a folder, one file per video."""

import os
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .feature_error import FeatureError
from .feature_store import FeatureStore, change_of, file_version


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
        return self._load(video_id, mmap_mode='r').shape

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
        message = change_of(self.where(video_id), self._find(video_id), version)
        if message:
            raise FeatureError(message, 'features changed while in use')

    def _read_array(self, video_id: str) -> np.ndarray:
        return self._load(video_id)

    def _load(self, video_id: str, mmap_mode: str | None = None) -> np.ndarray:
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
