"""Writing videos, and parts of them with their chapters."""

import os
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .video import ONE_THREAD, probe_video, read_pictures, read_sound, sound_format
from .video_stream import VideoReadError

TICK = Fraction(1, 90000)  # seconds, of the times of written pictures
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


class VideoWriter:
    """Writes a video picture by picture; a context manager.

    The file appears under its name when it is complete; after an error nothing is left.

    Args:
        path (str | Path): The file.
        rate (float): Pictures per second, where they are given without their times.
        form (str): Container. Defaults to ``'mp4'``.
        codec (str): Defaults to ``'libx264'``.
        pixels (str): Format of the pictures in the file. Defaults to ``'yuv420p'``.
        sound (tuple[int, str], optional): Samples per second and channel layout of the sound that
            will be added. Defaults to None: no sound.
        threads (int): Of the encoder; 0: as it likes. Defaults to 0.
        **options: Of the codec, such as ``crf='18'``.

    Attributes:
        end (float | None): Second at which the last picture ends. None at first: it lasts as long
            as the one before.
    """

    def __init__(
        self,
        path: str | Path,
        rate: float,
        form: str = 'mp4',
        codec: str = 'libx264',
        pixels: str = 'yuv420p',
        sound: tuple[int, str] | None = None,
        threads: int = 0,
        **options: str,
    ) -> None:
        self.path = Path(path)
        self._unfinished = self.path.with_name(self.path.name + '.part')
        self._rate = Fraction(rate).limit_denominator(1001)
        self._form, self._codec, self._pixels = form, codec, pixels
        self._kind, self._threads, self._options = sound, threads, options
        self._stream = self.sound = None
        self.end: float | None = None
        self._count, self._samples, self._held = 0, None, None

    def __enter__(self) -> 'VideoWriter':
        self._container = av.open(str(self._unfinished.absolute()), 'w', format=self._form)
        if self._kind is not None:  # all streams must be there before the first picture
            rate, layout = self._kind
            rate = rate if rate in AAC_RATES else 48000
            self.sound = self._container.add_stream('aac', rate=rate, layout=layout)
            self._resampler = av.AudioResampler(format='fltp', layout=layout, rate=rate)
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            if kind is None and self._stream is not None:
                self._mux(self._stream.encode())
                if self.end is not None:
                    ticks = round(self.end / self._held.time_base)
                    self._held.duration = max(1, ticks - self._held.pts)
                self._container.mux(self._held)
                if self.sound is not None:
                    self._container.mux(self.sound.encode())
            self._container.close()
            if kind is None:
                os.replace(self._unfinished, self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)

    def add(self, picture: np.ndarray, time: float | None = None, pixels: str = 'rgb24') -> None:
        """Write a picture.

        Args:
            picture (np.ndarray): (H, W, 3) uint8 RGB, or in the form of ``pixels``. In the file its
                sides are even, as H.264 needs them. A later one of another size is scaled.
            time (float, optional): Seconds from the beginning. Defaults to None: at ``rate``.
            pixels (str): What the array holds. Defaults to ``'rgb24'``.
        """
        if pixels == 'rgb24' and self._pixels == 'yuv420p':
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=pixels)
        if self._stream is None:
            self._stream = self._begin(frame, timed=time is not None)
        frame = frame.reformat(
            self._stream.width, self._stream.height, format=self._pixels, **ONE_THREAD
        )
        if time is None:
            frame.pts, frame.time_base = self._count, 1 / self._rate
        else:
            frame.pts, frame.time_base = round(time / TICK), TICK
        self._count += 1
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[av.Packet]) -> None:
        """Write all but the latest packet, whose length may change."""
        for packet in packets:
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet

    def _begin(self, frame: av.VideoFrame, timed: bool):
        stream = self._container.add_stream(self._codec, rate=self._rate)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, self._pixels
        stream.thread_count = self._threads
        stream.options = self._options
        if timed:
            stream.codec_context.time_base = TICK
        return stream

    def add_sound(self, frame: av.AudioFrame, time: float) -> None:
        """Write sound; the first of it begins at a time in seconds, the rest follows."""
        frame.pts = None
        if self._samples is None:
            self._samples = max(0, round(time * self.sound.rate))
        for part in self._resampler.resample(frame):
            part.pts, part.time_base = self._samples, Fraction(1, self.sound.rate)
            self._samples += part.samples
            self._container.mux(self.sound.encode(part))


def cut_clip(video: str | Path, start: float, end: float, path: str | Path) -> None:
    """Write a moment of a video as .mp4 (H.264, and AAC where there is sound).

    It is encoded anew, so that it begins and ends at the frames asked for, and not at key frames.

    Args:
        video (str | Path): The video.
        start (float): Seconds from its first picture.
        end (float): Seconds, > ``start``.
        path (str | Path): File to write; it appears when it is complete.

    Raises:
        VideoReadError: If the video cannot be read, has no frame in that time, or the clip cannot
            be written.
    """
    info = probe_video(video)
    sound = sound_format(video)
    try:
        # without B-frames the last packet is the last picture, which is shown to the end
        with VideoWriter(path, info.rate, sound=sound, preset='veryfast', crf='18', bf='0') as clip:
            clip.end = min(end, info.duration) - start
            for time, picture in read_pictures(video, start, end):
                clip.add(picture, time - start)
            for time, piece in read_sound(video, start, end) if sound else ():
                clip.add_sound(piece, time - start)
    except (av.FFmpegError, OSError) as error:
        raise VideoReadError(f'{video}: cannot be cut into {path} ({error})') from error


def webvtt(chapters: Iterable[tuple[float, float, str]]) -> str:
    """WebVTT text, as players take it for chapters or subtitles.

    Args:
        chapters (Iterable[tuple[float, float, str]]): Start and end in seconds, and text; in any
            order.
    """
    blocks = ['WEBVTT']
    for number, (start, end, text) in enumerate(sorted(chapters), 1):
        text = re.sub(r'\s+', ' ', text).strip()  # an empty line would end the cue
        text = text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
        blocks.append(f'{number}\n{time_stamp(start)} --> {time_stamp(end)}\n{text}')
    return '\n\n'.join(blocks) + '\n'


def time_stamp(seconds: float) -> str:
    """``hh:mm:ss.ttt``."""
    total = round(seconds * 1000)
    return (
        f'{total // 3_600_000:02}:{total // 60_000 % 60:02}:{total // 1000 % 60:02}.'
        f'{total % 1000:03}'
    )
