"""Frames in colour and full size."""
from pathlib import Path

import av
import numpy as np

from .video_reader import VideoReader


class RGBVideoReader(VideoReader):
    """As `VideoReader`, but gives out frames (H, W, 3) uint8 RGB in the video's own size.

    Args:
        path (str | Path): The video.
        fps (float): Frames per second that are given out.
    """

    plane = (0, 1)

    def __init__(self, path: str | Path, fps: float) -> None:
        super().__init__(path, fps, size=0)

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Make an array (H, W, 3) of a frame."""
        return self._reformatter.reformat(frame, format='rgb24').to_ndarray()
