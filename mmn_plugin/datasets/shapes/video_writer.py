"""Frames to .mp4."""

from pathlib import Path

import numpy as np

from mmn_plugin.features import VideoWriter


def write_video(path: str | Path, frames: np.ndarray, fps: int) -> None:
    """Encode frames as H.264; the file appears under its name only when it is complete.

    Args:
        path (str | Path): The .mp4 to write.
        frames (np.ndarray): (F, 3 * size / 2, size) uint8, planar YUV 4:2:0.
        fps (int): Frames per second.
    """
    # Tiny frames: more threads than one only cost, and effort saves a few kilobytes.
    with VideoWriter(path, fps, threads=1, preset='ultrafast', crf='16', g='48') as video:
        for picture in frames:
            video.add(picture, pixels='yuv420p')
