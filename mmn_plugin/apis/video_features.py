"""Features of whatever stands for a video."""
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from mmn_plugin.datasets import open_feature_store
from mmn_plugin.datasets.features.fingerprint import entry_fingerprint
from mmn_plugin.features import probe_video
from mmn_plugin.files import printable

from .temporary_video import file_of_frames, file_of_stream


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
    def of(cls, video, extractor: Callable, duration: float | None = None,
           video_id: str | None = None, fps: float | None = None) -> 'VideoFeatures':
        """Features of a video file, an open file, frames, or features.

        Args:
            video (str | Path | IO[bytes] | np.ndarray | Tensor | h5py.Dataset): Video file;
                ``FILE.h5::ENTRY``; open file; frames (T, H, W, 3) uint8 RGB; features (T, D).
            extractor (Callable): Returns the feature extractor; called where one is needed.
            duration (float, optional): Seconds. Defaults to None: as the file says.
            video_id (str, optional): Name. Defaults to None: the file's.
            fps (float, optional): Frames per second of an array of frames. Defaults to None.

        Raises:
            VideoReadError: If a video cannot be read.
            ValueError: If features or frames are of no use, or their duration is missing.
        """
        video_id = video_id or video_name(video)
        if _is_entry(video):
            return cls._of_store(video, duration, video_id)
        if isinstance(video, h5py.Dataset):
            return cls._of_entry(video, video[()], duration, video_id)
        if torch.is_tensor(video):
            video = video.detach().cpu().numpy()
        if isinstance(video, np.ndarray) and video.ndim == 4:
            duration = duration or (len(video) / fps if fps else None)
            return cls._extracted(file_of_frames(video, fps), extractor, duration, video_id)
        if hasattr(video, 'read'):
            return cls._extracted(file_of_stream(video), extractor, duration, video_id)
        if isinstance(video, str | Path):
            return cls._extracted(nullcontext(Path(video)), extractor, duration, video_id)
        return cls._ready(video, video_id, duration)

    @classmethod
    def _of_store(cls, name: str, duration: float | None, video_id: str) -> 'VideoFeatures':
        """Features of ``FILE.h5::ENTRY``, or of a folder that the datasets read."""
        path, _, entry = name.partition('::')
        group, _, key = entry.partition('/')
        store = open_feature_store(path, key or None)
        values = store.read(group)
        store.close()
        if not Path(path).is_file():
            return cls._ready(values, video_id, duration)
        with h5py.File(path) as file:
            return cls._of_entry(file[entry], values, duration, video_id)

    @classmethod
    def _of_entry(cls, entry: h5py.Dataset, values, duration: float | None,
                  video_id: str) -> 'VideoFeatures':
        features = cls._ready(values, video_id, duration or _entry_duration(entry))
        features.fingerprint = entry_fingerprint(entry)
        return features

    @classmethod
    def _extracted(cls, source, extractor: Callable, duration: float | None,
                   video_id: str) -> 'VideoFeatures':
        with source as path:
            duration = duration or probe_video(path).duration
            used = extractor()
            features = cls._ready(used(path), video_id, duration)
        if getattr(used, 'stride', None) and getattr(used, 'fps', None):
            features.row_seconds = used.stride / used.fps
        return features

    @classmethod
    def _ready(cls, values, video_id: str, duration: float | None) -> 'VideoFeatures':
        values = np.asarray(values, dtype=np.float32)
        if values.ndim != 2 or 0 in values.shape:
            raise ValueError(f'the features of video {video_id} have the shape {values.shape}; '
                             'expected (T, D), a row per step of time (frames are (T, H, W, 3))')
        if not np.isfinite(values).all():
            raise ValueError(f'the features of video {video_id} hold NaN or infinity')
        if duration is None or not duration > 0:
            raise ValueError(f'features alone do not tell how long video {video_id} is: give '
                             f'duration=<seconds above 0>, not {duration}')
        return cls(video_id, float(duration), values, duration / len(values))


def video_name(video) -> str:
    """Name of whatever `VideoFeatures.of` takes, where none is given."""
    if _is_entry(video):
        return video.partition('::')[2].partition('/')[0]
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
    return len(entry) * float(stride) / float(fps) if stride and fps else None
