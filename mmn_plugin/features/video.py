"""Reading videos: how long they are, when their pictures are shown, and the pictures themselves.

All times are seconds from a video's first picture, wherever in its file's own time that lies. The
length reaches from there to the end of the last picture, as its packets tell; what headers say is
only compared with it. Pictures come upright.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .video_stream import (
    ROUNDING,
    PictureStream,
    VideoLimitError,
    VideoReadError,
    open_pictures,
    quarters,
    spans,
    turned,
    upright,
)

VIDEO_SUFFIXES = (
    *('.mp4', '.m4v', '.mov', '.3gp', '.avi', '.mkv', '.webm', '.ogv', '.flv', '.wmv'),
    *('.mpg', '.mpeg', '.ts', '.m2ts', '.mts', '.h264', '.264'),
)
# Newer releases of PyAV scale with as many threads as there are cores, in every reader; and a
# forked process that frees an inherited scaler waits for its threads for ever.
ONE_THREAD = dict(threads=1) if 'threads' in str(VideoReformatter.reformat.__doc__) else {}
SOUND_BACK = 2.0  # seconds before the sound that is looked for, since seeking is not trusted


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its pictures are decoded.

    Attributes:
        times (np.ndarray): (F,) seconds from the first picture at which each of them begins,
            rising.
        duration (float): Seconds from the first picture to the end of the last one.
        rate (float): Pictures per second on average.
        width (int): Pixels of an upright picture.
        height (int): Likewise.
        notes (dict[str, str]): What is unusual, kind -> details.
    """

    times: np.ndarray
    duration: float
    rate: float
    width: int
    height: int
    notes: dict[str, str]


def probe_video(
    path: str | Path, max_pixels: int | None = None, timeout: float | None = None
) -> VideoInfo:
    """Length, rate and size of a video, from all its packets; only the first picture is decoded.

    Args:
        path (str | Path): The video.
        max_pixels (int, optional): Pixels of the largest picture allowed. Defaults to None.
        timeout (float, optional): Seconds that this may take. Defaults to None.

    Raises:
        VideoReadError: If the file is missing, damaged, cut off, or holds no picture.
        VideoLimitError: If its pictures are too large, or it takes too long.
    """
    begin = time.monotonic()
    with open_pictures(path, max_pixels) as stream:
        _, frame = next(stream.pictures(), (None, None))
        if frame is None:
            raise VideoReadError(f'{path}: holds no picture')
        origin = stream.timeline.origin
        stream.rewind()
        for _ in stream.packets():
            if timeout is not None and time.monotonic() - begin > timeout:
                raise VideoLimitError(path, f'it takes longer than {timeout:g} s to be read')
        timeline = stream.timeline
        timeline.origin = origin
        height, width = turned((frame.height, frame.width), frame)
        return VideoInfo(
            timeline.times, timeline.duration, timeline.rate, width, height, timeline.check()
        )


def read_pictures(
    path: str | Path, start: float = 0.0, end: float | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """Pictures of a part of a video: the one that is shown at its start, and all that begin in it.

    Args:
        path (str | Path): The video.
        start (float): Seconds. Defaults to 0.
        end (float, optional): Seconds. Defaults to None: to the end.

    Yields:
        tuple[float, np.ndarray]: Seconds at which the picture begins (never before ``start``), and
        the picture, (H, W, 3) uint8 RGB.

    Raises:
        VideoReadError: If the video cannot be read, or has no picture in that time.
    """
    with open_pictures(path, threads=0) as stream:
        count = 0
        for frame, when, following in spans(stream.pictures_since(start)):
            if end is not None and when >= end - 1e-3:
                break
            if following is None:
                following = when + stream.seconds_of(frame) - ROUNDING
            if when > start or following > start + ROUNDING:
                yield max(when, start), _rgb(frame)
                count += 1
        if not count:
            to = '' if end is None else f' to {end:g}'
            raise VideoReadError(f'{path}: has no frame from {start:g}{to} s')


def read_sound(path: str | Path, start: float, end: float) -> Iterator[tuple[float, av.AudioFrame]]:
    """Pieces of a video's first sound that begin in a part of it, with their times.

    All times are seconds from the first picture.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    with open_pictures(path) as stream:
        next(stream.pictures(), None)
        origin = stream.timeline.origin or 0.0
        for when, frame in _sound_since(stream, start, origin):
            if when >= end - 1e-3:
                return
            if when >= start - 1e-3:
                yield when, frame


def _sound_since(
    stream: PictureStream, seconds: float, origin: float
) -> Iterator[tuple[float, av.AudioFrame]]:
    """The first sound from a time or earlier on, with times from the first picture."""
    with suppress(av.FFmpegError):  # where that cannot be sought: from the beginning
        target = (origin + seconds - SOUND_BACK) * av.time_base
        stream.container.seek(max(0, int(target)))
        pieces = _sound(stream, origin)
        first = next(pieces, None)
        if first is not None and first[0] <= seconds:
            return itertools.chain([first], pieces)
    stream.rewind()
    return _sound(stream, origin)


def _sound(stream: PictureStream, origin: float) -> Iterator[tuple[float, av.AudioFrame]]:
    for packet in stream.container.demux(stream.container.streams.audio[0]):
        with suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                if frame.time is not None:
                    yield frame.time - origin, frame


def sound_format(path: str | Path) -> tuple[int, str] | None:
    """Samples per second, and mono or stereo, of a video's first sound; None: there is none."""
    with open_pictures(path) as stream:
        sound = next(iter(stream.container.streams.audio), None)
        if sound is None or not sound.rate:
            return None
        return sound.rate, 'mono' if sound.layout.nb_channels == 1 else 'stereo'


def sample_frames(
    path: str | Path,
    count: int = 16,
    height: int = 144,
    span: tuple[float, float] | None = None,
) -> np.ndarray:
    """Take pictures at even distances: of ``count`` equal parts of the video, the middle of each.

    Seeks to each place where the file can be sought in, so that the cost hardly grows with the
    length of the video.

    Args:
        path (str | Path): The video.
        count (int): Number of pictures. Defaults to 16.
        height (int): Pixels they are scaled to, the sides' ratio kept. Defaults to 144.
        span (tuple[float, float], optional): Start and end in seconds of the part that is looked
            at. Defaults to None: the whole video.

    Returns:
        np.ndarray: (count, height, W, 3) uint8, RGB.

    Raises:
        VideoReadError: If the file is missing or nothing of it can be decoded.
    """
    info = probe_video(path)
    shape = height, max(2, round(info.width / info.height * height))
    start, end = span or (0.0, info.duration)
    moments = start + (np.arange(count) + 0.5) / count * (end - start)
    with open_pictures(path, threads=0) as stream:
        return np.stack([_rgb(frame, shape) for frame in stream.pictures_at(moments)])


class VideoReader:
    """Decodes a video picture by picture, whatever its length, size and frame rate.

    Args:
        path (str | Path): The video.
        fps (float, optional): Frames per second that are given out: at each time k / fps the last
            picture shown by then. None: those shown at ``times``.
        size (int): Side of the square that every frame is scaled to, in pixels.
        times (np.ndarray, optional): Rising seconds at which frames are given out, where there is
            no ``fps``; with `VideoInfo.times` the k-th frame is the video's k-th picture, whatever
            its rate (where it cannot be decoded, the one before it). Defaults to None.

    Attributes:
        max_pixels (int | None): Pixels of the largest picture allowed. None at first.
        notes (dict[str, str]): What was unusual and could be dealt with, kind -> details; complete
            when all frames have been given out.
        given (int): How many frames have been given out.
    """

    def __init__(
        self, path: str | Path, fps: float | None, size: int, times: np.ndarray | None = None
    ) -> None:
        self.path = Path(path)
        self.fps = fps
        self.size = size
        self.times = times
        self.max_pixels: int | None = None
        self.notes: dict[str, str] = {}
        self.given = 0
        # One for all frames: setting the scaler up costs more than scaling.
        self._reformatter = VideoReformatter()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames (3, size, size) uint8, YUV 4:4:4 in limited range.

        Raises:
            VideoReadError: If the file is missing, damaged, cut off, or holds no picture.
        """
        times = (
            (k / self.fps for k in itertools.count()) if self.times is None else iter(self.times)
        )
        due = next(times, np.inf)
        with open_pictures(self.path, self.max_pixels) as stream:
            for frame, until in self._shown(stream):
                picture = None  # converted only if it is shown, and only once
                while due < until - ROUNDING:
                    picture = self.convert(frame) if picture is None else picture
                    self.given += 1
                    yield picture
                    due = next(times, np.inf)
                if picture is not None and (turns := quarters(frame)):
                    self.notes['rotated'] = f'turned by {90 * turns} degrees to be upright'

    def _shown(self, stream: PictureStream) -> Iterator[tuple[av.VideoFrame, float]]:
        """Each picture, and the time until which it is shown."""
        end = None
        for frame, when, end in spans(stream.pictures()):
            if end is not None:
                stream.timeline.require_step(when, end)
                yield frame, end
        if stream.timeline.origin is None:
            raise VideoReadError(f'{self.path}: holds no picture')
        self.notes.update(stream.check_damage() | stream.timeline.check())
        # The last picture stays to the end, at least for its own moment.
        yield frame, max(stream.timeline.duration, stream.last + 1e-3)

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """The upright picture as an array."""
        scaled = self._reformatter.reformat(
            frame,
            width=self.size,
            height=self.size,
            format='yuv444p',
            dst_color_range='MPEG',
            interpolation='AREA',
            **ONE_THREAD,
        )
        return upright(scaled.to_ndarray(), frame, (1, 2))  # (3, size, size)


class RGBVideoReader(VideoReader):
    """As `VideoReader`, but gives out frames (H, W, 3) uint8 RGB.

    Args:
        path (str | Path): As of `VideoReader`.
        fps (float, optional): Likewise.
        times (np.ndarray, optional): Likewise.
        shape (tuple[int, int], optional): Height and width that every upright frame is scaled to.
            Defaults to None: its own.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | None,
        times: np.ndarray | None = None,
        shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(path, fps, 0, times)
        self.shape = shape

    def convert(self, frame: av.VideoFrame) -> np.ndarray:
        """The upright picture (H, W, 3)."""
        return _rgb(frame, self.shape, self._reformatter)


def _rgb(
    frame: av.VideoFrame,
    shape: tuple[int, int] | None = None,
    reformatter: VideoReformatter | None = None,
) -> np.ndarray:
    """An upright picture (H, W, 3) uint8, in its own size or scaled."""
    height, width = turned(shape or (None, None), frame)
    scaled = (reformatter or VideoReformatter()).reformat(
        frame, width=width, height=height, format='rgb24', **ONE_THREAD
    )
    return upright(scaled.to_ndarray(), frame, (0, 1))


def sliding_windows(
    frames: Iterable[np.ndarray],
    stride: int,
    clip_len: int,
    interval: int = 1,
    stack: Callable[[list], np.ndarray] = np.stack,
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
        stack (Callable): Makes one array of a clip's frames. Defaults to NumPy's.

    Yields:
        np.ndarray: ``(clip_len, *frame)``, one for every started stride.
    """
    reach = (clip_len - 1) * interval
    offset = (stride - reach - 1) // 2  # of the clip's first frame from its stride's
    held: deque = deque()
    first = read = clips = 0  # index of held[0]; frames so far; clips so far
    for frame in itertools.chain(frames, (None,)):
        if frame is not None:
            held.append(frame)
            read += 1
        while clips * stride < read:
            begin = clips * stride + offset
            if frame is not None and begin + reach >= read:
                break
            places = begin - first + np.arange(clip_len) * interval
            yield stack([held[place] for place in places.clip(0, len(held) - 1)])
            clips += 1
            while first < min(clips * stride + offset, read - 1):
                held.popleft()
                first += 1
