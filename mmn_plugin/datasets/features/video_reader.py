"""Frames of a video at an even rate, one after another."""
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .video_read_error import VideoReadError


class VideoReader:
    """Decodes a video frame by frame, whatever its length, size and frame rate.

    Args:
        path (str | Path): The video.
        fps (float): Frames per second that are given out: at each time k / fps the last frame
            shown by then.
        size (int): Side of the square that every frame is scaled to, in pixels.
    """

    def __init__(self, path: str | Path, fps: float, size: int) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        # One for all frames: setting the scaler up costs more than scaling.
        self._reformatter = VideoReformatter()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames (3, size, size) uint8, YUV 4:4:4 in limited range.

        Raises:
            VideoReadError: If the file is missing, damaged, or holds no picture.
        """
        if not self.path.is_file():
            raise VideoReadError(f'{self.path}: no such file')
        count = 0
        try:
            with av.open(str(self.path)) as container:
                for picture in self._sample(container):
                    count += 1
                    yield picture
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(f'{self.path}: cannot be decoded after {count} frames at '
                                 f'{self.fps:g} fps ({error})') from error
        if count == 0:
            raise VideoReadError(f'{self.path}: holds no picture')

    def _sample(self, container) -> Iterator[np.ndarray]:
        if not container.streams.video:
            raise VideoReadError(f'{self.path}: holds no video stream')
        stream = container.streams.video[0]
        stream.thread_count = 1  # workers are processes; small frames gain nothing from threads
        origin, due, waiting, time = None, 0, None, 0.
        for frame in container.decode(stream):
            time = frame.time if frame.time is not None else due / self.fps
            origin = time if origin is None else origin
            # A frame counts from its own time on; half a millisecond forgives rounded time stamps.
            while waiting is not None and due / self.fps < time - origin - 5e-4:
                waiting = self._scaled(waiting)
                yield waiting
                due += 1
            waiting = frame
        if waiting is not None:
            # The last frame stays as long as the stream says, at least for its own moment.
            end = max(self._end(stream, origin), time - origin + 1e-3)
            while due / self.fps < end - 5e-4:
                waiting = self._scaled(waiting)
                yield waiting
                due += 1

    @staticmethod
    def _end(stream, origin: float) -> float:
        if stream.duration is None or stream.time_base is None:
            return 0.
        return float((stream.start_time or 0) * stream.time_base - origin
                     + stream.duration * stream.time_base)

    def _scaled(self, frame) -> np.ndarray:
        if isinstance(frame, np.ndarray):
            return frame
        scaled = self._reformatter.reformat(
            frame, width=self.size, height=self.size, format='yuv444p',
            dst_color_range='MPEG', interpolation='AREA')
        return scaled.to_ndarray()  # (3, size, size)
