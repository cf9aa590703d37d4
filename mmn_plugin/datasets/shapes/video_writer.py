"""Frames to .mp4."""
import os
from pathlib import Path

import av
import numpy as np


def write_video(path: str | Path, frames: np.ndarray, fps: int) -> None:
    """Encode frames as H.264; the file appears under its name only when it is complete.

    Args:
        path (str | Path): The .mp4 to write.
        frames (np.ndarray): (F, 3 * size / 2, size) uint8, planar YUV 4:2:0.
        fps (int): Frames per second.
    """
    path = Path(path)
    unfinished = path.with_suffix('.part')
    with av.open(str(unfinished), 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=fps)
        stream.width = stream.height = frames.shape[2]
        stream.pix_fmt = 'yuv420p'
        # Tiny frames: more threads than one only cost, and effort saves a few kilobytes.
        stream.thread_count = 1
        stream.options = dict(preset='ultrafast', crf='16', g='48')
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(picture, format='yuv420p')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.replace(unfinished, path)
