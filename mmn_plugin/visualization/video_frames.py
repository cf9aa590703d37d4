"""A few frames of a video, for thumbnails."""
from pathlib import Path

import numpy as np


def sample_frames(path: str | Path, count: int = 16, height: int = 144) -> np.ndarray:
    """Take frames at even distances: of ``count`` equal parts of the video, the middle of each.

    Seeks to each place, so that the cost does not grow with the length of the video.

    Args:
        path (str | Path): The video.
        count (int): Number of frames. Defaults to 16.
        height (int): Pixels they are scaled to, the sides' ratio kept. Defaults to 144.

    Returns:
        np.ndarray: (count, height, W, 3) uint8, RGB.

    Raises:
        VideoReadError: If the file is missing or nothing of it can be decoded.
    """
    import av

    from mmn_plugin.datasets.features import VideoReadError

    if not Path(path).is_file():
        raise VideoReadError(f'{path}: no such file')
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoReadError(f'{path}: holds no video stream')
            return _sample(container, count, height)
    except (av.FFmpegError, OSError, StopIteration) as error:
        raise VideoReadError(f'{path}: cannot be decoded ({error})') from error


def _sample(container, count: int, height: int) -> np.ndarray:
    stream = container.streams.video[0]
    stream.thread_type = 'AUTO'
    first = float((stream.start_time or 0) * stream.time_base)
    length = _length(container, stream)
    frames, size = [], None
    for i in range(count):
        frame = _frame_at(container, stream, first + (i + 0.5) / count * length)
        quarters = round(getattr(frame, 'rotation', 0) / 90) % 4  # a phone held upright
        size = size or _size(frame, height, turned=quarters % 2)
        picture = frame.reformat(*size, format='rgb24').to_ndarray()
        frames.append(np.rot90(picture, quarters))
    return np.stack(frames)


def _size(frame, height: int, turned: bool) -> tuple[int, int]:
    """Width and height to scale a frame to, so that it has a height once it is upright."""
    if turned:
        return height, max(2, round(frame.height / frame.width * height))
    return max(2, round(frame.width / frame.height * height)), height


def _frame_at(container, stream, seconds: float):
    """The last frame shown by a time; the first one after it where there is none."""
    container.seek(int(seconds / stream.time_base), stream=stream)
    shown = None
    for frame in container.decode(stream):
        if shown is not None and frame.time is not None and frame.time > seconds:
            break
        shown = frame
    if shown is None:  # beyond the last key frame that is whole
        container.seek(0)
        shown = next(container.decode(stream))
    return shown


def _length(container, stream) -> float:
    """Seconds, from the stream's or the container's own word."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6
