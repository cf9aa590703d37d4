"""Frames of a video at an even rate, one after another."""
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .frame_clock import FrameClock
from .video_packets import VideoPackets
from .video_read_error import VideoReadError


class VideoReader:
    """Decodes a video frame by frame, whatever its length, size and frame rate.

    Pictures come upright: a phone's note that its picture lies on the side is followed.

    Args:
        path (str | Path): The video.
        fps (float): Frames per second that are given out: at each time k / fps the last frame
            shown by then.
        size (int): Side of the square that every frame is scaled to, in pixels.

    Attributes:
        notes (dict[str, str]): What was unusual and could be dealt with, kind -> details; complete
            when all frames have been given out.
    """

    def __init__(self, path: str | Path, fps: float, size: int) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.notes: dict[str, str] = {}
        # One for all frames: setting the scaler up costs more than scaling.
        self._reformatter = VideoReformatter()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames (3, size, size) uint8, YUV 4:4:4 in limited range.

        Raises:
            VideoReadError: If the file is missing, damaged, cut off, or holds no picture.
        """
        if not self.path.is_file():
            raise VideoReadError(f'{self.path}: no such file')
        if self.path.stat().st_size == 0:
            raise VideoReadError(f'{self.path}: is empty (0 bytes)')
        count = 0
        try:
            with av.open(str(self.path)) as container:
                for picture in self._sample(VideoPackets(self.path, container)):
                    count += 1
                    yield picture
        except (av.FFmpegError, OSError) as error:
            raise VideoReadError(f'{self.path}: cannot be decoded after {count} frames at '
                                 f'{self.fps:g} fps ({error})') from error
        if count == 0:
            raise VideoReadError(f'{self.path}: holds no picture')

    def _sample(self, packets: VideoPackets) -> Iterator[np.ndarray]:
        clock = FrameClock(self.path, packets.rate, packets.declared)
        due, show = 0, None
        for frame in packets.frames():
            time = clock.read(frame)
            # A frame counts from its own time on; half a millisecond forgives rounded time stamps.
            while show is not None and due / self.fps < time - 5e-4:
                yield show()
                due += 1
            show = self._shown_once(frame)
        packets.check_end()
        if show is not None:
            # The last frame stays as long as the stream says, at least for its own moment.
            end = max(packets.declared or 0., clock.last + 1e-3)
            while due / self.fps < end - 5e-4:
                yield show()
                due += 1
        self.notes.update(packets.notes | clock.notes)

    def _shown_once(self, frame: av.VideoFrame) -> Callable[[], np.ndarray]:
        """Convert a frame only if it is shown, and only once."""
        picture = None

        def show() -> np.ndarray:
            nonlocal picture
            if picture is None:
                picture = self._upright(frame, self.convert(frame))
            return picture

        return show

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """Make an array (..., height, width) of a frame."""
        scaled = self._reformatter.reformat(
            frame, width=self.size, height=self.size, format='yuv444p',
            dst_color_range='MPEG', interpolation='AREA')
        return scaled.to_ndarray()  # (3, size, size)

    def _upright(self, frame: av.VideoFrame, picture: np.ndarray) -> np.ndarray:
        quarters = round(getattr(frame, 'rotation', 0) / 90) % 4  # counter-clockwise
        if not quarters:
            return picture
        self.notes['rotated'] = f'turned by {90 * quarters} degrees to be upright'
        return np.ascontiguousarray(np.rot90(picture, quarters, axes=self.plane))

    plane = (1, 2)  # axes of a picture's rows and columns
