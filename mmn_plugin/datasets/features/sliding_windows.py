"""Clips of a stream of frames."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np


def sliding_windows(
    frames: Iterable[np.ndarray], stride: int, clip_len: int, interval: int = 1
) -> Iterator[np.ndarray]:
    """Cut a clip around the middle of every ``stride`` frames.

    Clip k takes every ``interval``-th of ``clip_len * interval`` frames whose middle is that of
    frames ``k * stride ... (k + 1) * stride - 1``, so that row k of the features stands for just
    that time, however far the clip reaches beyond it. Before the first frame and after the last one
    these two stand still. No more frames are held than a clip and a stride need.

    Args:
        frames (Iterable[np.ndarray]): Any number of frames.
        stride (int): Frames from one clip to the next.
        clip_len (int): Frames of a clip.
        interval (int): Frames from one frame of a clip to the next. Defaults to 1.

    Yields:
        np.ndarray: (clip_len, *frame), one for every started stride.
    """
    reach = (clip_len - 1) * interval
    offset = (stride - reach - 1) // 2  # of the clip's first frame from its stride's
    held: deque = deque()
    first = read = clips = 0  # index of held[0]; frames so far; clips so far
    for frame in frames:
        held.append(frame)
        read += 1
        while clips * stride < read and clips * stride + offset + reach < read:
            yield _clip(held, first, clips * stride + offset, clip_len, interval)
            clips += 1
            while first < min(clips * stride + offset, read - 1):
                held.popleft()
                first += 1
    while clips * stride < read:
        yield _clip(held, first, clips * stride + offset, clip_len, interval)
        clips += 1


def _clip(held: deque, first: int, begin: int, clip_len: int, interval: int) -> np.ndarray:
    places = begin - first + np.arange(clip_len) * interval
    return np.stack([held[place] for place in places.clip(0, len(held) - 1)])
