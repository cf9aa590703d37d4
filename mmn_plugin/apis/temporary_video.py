"""Videos that are no files yet."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmn_plugin.features import VideoWriter


@contextmanager
def file_of_stream(stream) -> Iterator[Path]:
    """Copy of an open file for as long as the context lasts; memory does not grow with it.

    Args:
        stream: Open in binary mode; read from its beginning where it can be rewound.

    Raises:
        ValueError: If it is open as text, or empty.
    """
    name = getattr(stream, 'name', None)
    suffix = Path(name).suffix if isinstance(name, str) else ''
    with tempfile.TemporaryDirectory(prefix='mmn_video_') as folder:
        path = Path(folder) / f'video{suffix}'
        if getattr(stream, 'seekable', lambda: False)():
            stream.seek(0)
        with path.open('wb') as copy:
            try:
                shutil.copyfileobj(stream, copy, 1 << 20)
            except TypeError:
                raise ValueError(
                    f'the open file {name or ""} gives text: open videos in binary '
                    "mode, open(path, 'rb')"
                ) from None
        if not path.stat().st_size:
            raise ValueError(f'the open file {name or ""} is empty')
        yield path


@contextmanager
def file_of_frames(frames: np.ndarray, fps: float) -> Iterator[Path]:
    """A lossless video of frames for as long as the context lasts.

    Args:
        frames (np.ndarray): (T, H, W, 3) uint8, RGB.
        fps (float): Frames per second.

    Raises:
        ValueError: If the frames are no such array.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f'frames of shape {frames.shape} and type {frames.dtype}: expected '
            '(T, H, W, 3) uint8, RGB'
        )
    with tempfile.TemporaryDirectory(prefix='mmn_video_') as folder:
        path = Path(folder) / 'video.avi'
        with VideoWriter(path, fps, form='avi', codec='ffv1', pixels='bgr0') as video:
            for picture in frames:
                video.add(picture)
        yield path
