"""Where the features of a dataset's videos are read from."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .feature_error import FeatureError


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
            raise FileNotFoundError(
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
            'annotations; tools/data/check_dataset.py lists all that are missing',
            'video without features',
        )


def file_version(path: str | Path) -> tuple[int, ...]:
    """Size, time of change in nanoseconds, and place on the disk of a file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def change_of(where: str | Path, path: Path | None, version: Sequence[int]) -> str | None:
    """Message on a file that is not of a version any more, or None.

    A moment's failure of the disk to tell is left to the read.

    Args:
        where (str | Path): What the message names.
        path (Path, optional): The file; None says that it is not there any more.
        version (Sequence[int]): What `file_version` gave.
    """
    how = 'removed'
    try:
        if path is not None and file_version(path) == tuple(version):
            return None
        how = 'removed' if path is None else 'replaced or changed'
    except FileNotFoundError:
        pass
    except OSError:
        return None
    return (
        f'{where} was {how} while it was in use: what was read before came from another '
        'version. Let the writing finish, and resume from a checkpoint that was saved before '
        'it, or train anew'
    )


def describe_folder(path: str | Path, limit: int = 10) -> str:
    """What lies in the nearest existing folder above a path, as one sentence for messages."""
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name + '/' * entry.is_dir() for entry in os.scandir(folder))
    if not names:
        return f'{folder} is empty'
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f'{folder} holds {", ".join(names[:limit])}{more}'
