"""Features of whatever stands for a video."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mmn_plugin.datasets import open_feature_store
from mmn_plugin.datasets.features.fingerprint import entry_fingerprint
from mmn_plugin.datasets.hdf5_feature_store import require_written
from mmn_plugin.features import probe_video
from mmn_plugin.files import printable

from .temporary_video import file_of_frames, file_of_stream
from .video_input import plain_video, positive_number


@dataclass
class VideoFeatures:
    """Features of one video.

    Attributes:
        video_id (str): Its name.
        duration (float): Seconds.
        values (np.ndarray): (T, D) float32.
        row_seconds (float): Seconds from one row to the next.
        fingerprint (dict | None): What made them, where an HDF5 file tells it.
    """

    video_id: str
    duration: float
    values: np.ndarray
    row_seconds: float
    fingerprint: dict | None = None

    @classmethod
    def of(
        cls,
        video,
        extractor: Callable,
        duration: float | None = None,
        video_id: str | None = None,
        fps: float | None = None,
    ) -> 'VideoFeatures':
        """Features of a video file, an open file, frames, or features.

        Args:
            video (str | bytes | PathLike | IO[bytes] | np.ndarray | Tensor | h5py.Dataset): Video
                file; ``FILE.h5::ENTRY``; open file; frames (T, H, W, 3) uint8 RGB; features (T, D).
            extractor (Callable): Returns the feature extractor; called where one is needed.
            duration (float, optional): Seconds, see `positive_number`. Defaults to None: as the
                file says.
            video_id (str, optional): Name. Defaults to None: the file's.
            fps (float, optional): Frames per second of an array of frames, likewise. Defaults to
                None.

        Raises:
            VideoReadError: If a video cannot be read.
            ValueError: If features or frames are of no use, or their duration is missing.
        """
        video = plain_video(video)
        video_id = video_id or video_name(video)
        if duration is not None:
            duration = positive_number(
                duration, f'duration={duration!r}: give the seconds of the video, above 0'
            )
        if _is_entry(video):
            return cls._of_store(video, duration, video_id)
        if isinstance(video, h5py.Dataset):
            require_written(video, f'{video.file.filename}: entry {video.name!r}')
            return cls._of_entry(video, video[()], duration, video_id)
        if isinstance(video, np.ndarray) and video.ndim == 4:
            fps = positive_number(
                fps,
                'an array of frames does not tell its rate: give '
                f'fps=<frames per second above 0>, not {fps!r}',
            )
            return cls._extracted(
                file_of_frames(video, fps), extractor, duration or len(video) / fps, video_id
            )
        if hasattr(video, 'read'):
            return cls._extracted(file_of_stream(video), extractor, duration, video_id)
        if isinstance(video, str | Path):
            return cls._extracted(nullcontext(Path(video)), extractor, duration, video_id)
        return cls._ready(video, video_id, duration)

    @classmethod
    def _of_store(cls, name: str, duration: float | None, video_id: str) -> 'VideoFeatures':
        """Features of ``FILE.h5::ENTRY``, or of a folder that the datasets read."""
        path, entry = split_entry(name)
        group, _, key = entry.partition('/')
        store = open_feature_store(path, key or None)
        values = store.read(group)
        store.close()
        if not Path(path).is_file():
            return cls._ready(values, video_id, duration)
        with h5py.File(path) as file:
            return cls._of_entry(file[entry], values, duration, video_id)

    @classmethod
    def _of_entry(
        cls, entry: h5py.Dataset, values, duration: float | None, video_id: str
    ) -> 'VideoFeatures':
        features = cls._ready(values, video_id, duration or _entry_duration(entry))
        features.fingerprint = entry_fingerprint(entry)
        return features

    @classmethod
    def _extracted(
        cls, source, extractor: Callable, duration: float | None, video_id: str
    ) -> 'VideoFeatures':
        with source as path:
            duration = duration or probe_video(path).duration
            used = extractor()
            features = cls._ready(used(path), video_id, duration)
        if getattr(used, 'stride', None) and getattr(used, 'fps', None):
            features.row_seconds = used.stride / used.fps
        return features

    @classmethod
    def _ready(cls, values, video_id: str, duration: float | None) -> 'VideoFeatures':
        try:
            values = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            raise ValueError(
                f'{video_id}: a {type(values).__name__} is neither the path of a '
                'video, nor an open file, nor an array of numbers'
            ) from None
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(
                f'the features of video {video_id} have the shape {values.shape}; '
                'expected (T, D), a row per step of time (frames are (T, H, W, 3))'
            )
        if not np.isfinite(values).all():
            raise ValueError(f'the features of video {video_id} hold NaN or infinity')
        if duration is None:
            raise ValueError(
                f'features alone do not tell how long video {video_id} is: give '
                'duration=<seconds above 0>'
            )
        return cls(video_id, float(duration), values, duration / len(values))


def video_name(video) -> str:
    """Name of whatever `VideoFeatures.of` takes, where none is given."""
    if _is_entry(video):
        return split_entry(video)[1].partition('/')[0]
    if isinstance(video, h5py.Dataset):
        return video.name.strip('/')
    if hasattr(video, 'read'):
        name = getattr(video, 'name', None)
        return printable(Path(name).stem) if isinstance(name, str) else 'file'
    return printable(Path(video).stem) if isinstance(video, str | Path) else 'array'


def _is_entry(video) -> bool:
    return isinstance(video, str) and '::' in video and not Path(video).is_file()


def _entry_duration(entry: h5py.Dataset) -> float | None:
    """Seconds of an entry whose attributes tell its stride (frames) and frame rate."""
    stride, fps = entry.attrs.get('stride'), entry.attrs.get('fps')
    if stride is None or fps is None:
        return None
    stride, fps = (
        positive_number(
            value,
            f'{entry.file.filename}: entry {entry.name!r} has '
            f'stride={stride!r} and fps={fps!r}; both must be '
            'numbers above 0',
        )
        for value in (stride, fps)
    )
    return len(entry) * stride / fps


def split_entry(name: str) -> tuple[str, str]:
    """File (or folder) and entry of ``FILE::ENTRY``; both may have ``::`` in their names."""
    parts = name.split('::')
    paths = ['::'.join(parts[:place]) for place in range(1, len(parts))]
    path = next((path for path in paths if Path(path).exists()), paths[0])
    return path, name[len(path) + 2 :]
