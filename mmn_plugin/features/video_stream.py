"""An opened video: its packets, their times, and decoding from any moment on."""

import re
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import av
import numpy as np

from mmn_plugin.errors import InputError

ROUNDING = 5e-4  # seconds; time stamps may be whole milliseconds
DAMAGED = 0.1  # share of packets that may be damaged; from there on a video is not usable
MISSING = 1.0  # seconds by which headers and pictures may differ (and 2 %): headers are rounded
UNEVEN = 0.25  # deviation from the average interval that counts as uneven
SHARE = 0.02  # share of uneven intervals from which on a video is said to have a variable rate
BEYOND = 60.0  # seconds of a leap past the declared end that is taken for a damaged time stamp
PAUSE = 3600.0  # seconds from one picture to the next that are, wherever they are
# Containers that write a time beside every picture. In others (MPEG-PS, AVI, raw streams) a decoder
# that begins in the middle counts from a guess, one picture off or more.
SEEKABLE = ('mov', 'matroska', 'mpegts', 'flv', 'asf')
BACK = 20  # pictures by which packets may go back in time: more than any codec puts out of order


class VideoReadError(InputError):
    """A video cannot be decoded; the message names the file and the cause."""


class VideoLimitError(VideoReadError):
    """A video is larger than the caller allows; ``reason`` says what, and how much is allowed."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.reason = reason

    def __str__(self) -> str:
        return '{}: {}'.format(*self.args)


@contextmanager
def open_pictures(
    path: str | Path, max_pixels: int | None = None, threads: int = 1
) -> Iterator['PictureStream']:
    """Open a `PictureStream` as a context; what FFmpeg complains of becomes a `VideoReadError`."""
    path = Path(path)
    if not path.is_file():
        what = 'is a folder; give a video file' if path.is_dir() else 'no such file'
        raise VideoReadError(f'{path}: {what}')
    if path.stat().st_size == 0:
        raise VideoReadError(f'{path}: is empty (0 bytes)')
    stream = None
    try:
        stream = PictureStream(path, max_pixels, threads)
        yield stream
    except (av.FFmpegError, OSError) as error:
        count = 0 if stream is None else stream.decoded
        reason = error.strerror or error  # without the path once more
        message = f'{path}: cannot be decoded after {count} frames ({reason})'
        raise VideoReadError(message) from error
    finally:
        if stream is not None:
            stream.container.close()


class PictureStream:
    """The first video stream of a file, from its beginning or from another moment on.

    A packet that cannot be decoded is left out, so that the picture before it stays.

    Args:
        path (Path): The video.
        max_pixels (int | None): Pixels of the largest picture allowed.
        threads (int): Of the decoder; 0: as many as there are cores.

    Attributes:
        timeline (Timeline): Times of the packets that were read since the beginning.
        last (float): Seconds from the first picture to the latest one.
    """

    def __init__(self, path: Path, max_pixels: int | None, threads: int) -> None:
        self.path, self.max_pixels, self.threads = path, max_pixels, threads
        self.container = None
        self.rewind()

    def rewind(self) -> None:
        """Begin anew; to open the file again is the one way back that works in all containers."""
        if self.container is not None:
            self.container.close()
        # an absolute path, since "a:b.mp4" would be taken for a protocol
        self.container = av.open(str(self.path.absolute()))
        self.stream = stream = self._choose_stream()
        stream.thread_count = self.threads
        if self.threads != 1:
            stream.thread_type = 'AUTO'
        self._limit_pixels()
        self._tick = float(stream.time_base)
        # AVI and raw streams do not tell when a picture is shown: they come one after the other
        forms = set(self.container.format.name.split(','))
        self._in_turn, self._vp8 = 'avi' in forms, stream.codec_context.name == 'vp8'
        self._seekable = not forms.isdisjoint(SEEKABLE)
        self._stamps: deque[float] = deque()
        raw = stream.start_time is None and stream.duration is None
        rate = (stream.guessed_rate if raw else stream.average_rate) or 25
        self.timeline = Timeline(self.path, float(rate), *self._declared())
        self.last = 0.0
        self.decoded = self._good = self._bad = 0

    def _choose_stream(self):
        for stream in self.container.streams.video:
            if 'attached_pic' not in repr(stream.disposition):  # a cover of an audio file
                return stream
        others = sorted({stream.type for stream in self.container.streams}) or ['nothing']
        what = 'a cover picture and no video' if self.container.streams.video else 'no video stream'
        raise VideoReadError(f'{self.path}: holds {what} (only {", ".join(others)})')

    def _limit_pixels(self) -> None:
        if self.max_pixels is None:
            return
        width, height = self.stream.width, self.stream.height
        if width * height > self.max_pixels:
            most = f'at most {self.max_pixels:,} pixels are taken'
            raise VideoLimitError(self.path, f'its pictures have {width} x {height} pixels; {most}')
        self.stream.codec_context.options = dict(max_pixels=str(self.max_pixels))  # if they grow

    def _declared(self) -> tuple[float | None, bool]:
        """Seconds that the pictures last by the headers; whether sound may be counted in."""
        stream, container = self.stream, self.container
        if container.format.name in ('mpeg', 'mpegts'):  # FFmpeg's guess, not the file's word
            return None, True
        if stream.duration:
            return stream.duration * self._tick, False
        # Matroska and FLV count from 0, not from the first picture
        start = (stream.start_time or 0) * self._tick
        tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', ''))
        if tag:
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]) - start, False
        if not container.duration:
            return None, True
        return container.duration / av.time_base - start, len(container.streams) > 1

    def packets(self, record: bool = True) -> Iterator[tuple[av.Packet, float | None]]:
        """All packets from here on with their times in the file, kept in the timeline on demand.

        The last one is empty.
        """
        for packet in self.container.demux(self.stream):
            if packet.size:
                stamp = packet.dts if self._in_turn or packet.pts is None else packet.pts
                begin = None if stamp is None else stamp * self._tick
                # outside of an edit list, or a picture of VP8 from which others are made
                hidden = packet.is_discard or (self._vp8 and not memoryview(packet)[0] & 16)
                if record and not hidden:
                    self.timeline.add(packet, begin, self._tick)
                yield packet, begin
            elif packet.pts is None:  # an empty packet in the middle would end the decoder
                yield packet, None

    def pictures(self, record: bool = True) -> Iterator[tuple[float, av.VideoFrame]]:
        """All pictures from here on that can be decoded, with seconds from the first picture."""
        for packet, begin in self.packets(record):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                # a recording may begin between key frames
                self._bad += self.timeline.origin is not None
                continue
            if begin is not None and self._in_turn:
                self._stamps.append(begin)
            damaged = any(frame.is_corrupt for frame in frames)
            self._bad += damaged
            self._good += bool(packet.size) and not damaged
            for frame in frames:
                when = self._time(frame)
                yield when, frame
                self.decoded += 1
                self.last = max(when, self.last) if self.decoded > 1 else when

    def _time(self, frame: av.VideoFrame) -> float:
        time, timeline = frame.time, self.timeline
        if self._in_turn:
            time = self._stamps.popleft() if self._stamps else None
        if time is None:
            self._seekable = False
            step = 0.0 if timeline.origin is None else self.last + 1 / timeline.average
            timeline.origin = timeline.origin or 0.0
            return step
        if timeline.origin is None:
            timeline.origin = time
        return time - timeline.origin

    def check_damage(self) -> dict[str, str]:
        """Note on damaged packets, once all have been read; too many raise a `VideoReadError`."""
        share = f'{self._bad} of {self._bad + self._good}'
        if self._bad > DAMAGED * (self._bad + self._good):
            raise VideoReadError(f'{self.path}: {share} packets are damaged')
        note = {'damaged packets': f'{share} left out or mended by the decoder'}
        return note if self._bad else {}

    def pictures_since(self, seconds: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Pictures from a key frame at or before a time on.

        Where a file says that a key frame lies is not trusted: if the first one that is decoded
        lies after the time, the search begins earlier, at last from the beginning.
        """
        if self.timeline.origin is None:
            next(self.pictures(), None)
        back = 0.0
        while self._seekable and seconds > back:
            found = self._seek(seconds - back, seconds)
            if found is not None:
                yield from found
                return
            back = max(1.0, 2 * back)
        self.rewind()
        yield from self.pictures()

    def _seek(self, target: float, wanted: float) -> Iterator[tuple[float, av.VideoFrame]] | None:
        """Pictures from the key frame on that is found for a target; None if it is too late."""
        try:
            offset = int((self.timeline.origin + target) / self._tick)
            self.container.seek(offset, stream=self.stream)
        except av.FFmpegError:
            self._seekable = False
            return None
        pictures = self.pictures(record=False)
        for when, frame in pictures:
            if not self._seekable or when > wanted + ROUNDING:
                return None
            if frame.key_frame:  # what comes before it may lack what it is made from
                return chain([(when, frame)], pictures)
        return None

    def pictures_at(self, moments: Sequence[float]) -> Iterator[av.VideoFrame]:
        """The picture that is shown at each of several rising times."""
        pictures, seeking = self.pictures(), True
        shown, following = None, next(pictures, None)
        if following is None:
            raise VideoReadError(f'{self.path}: holds no picture')
        for moment in moments:
            if seeking and shown is not None and following and following[0] <= moment:
                pictures = self.pictures_since(moment)
                following = next(pictures, None)
                # sought back to what has been read: from here on reading on is shorter
                seeking = following is not None and following[0] > shown[0]
            while following is not None and following[0] <= moment + ROUNDING:
                shown, following = following, next(pictures, None)
            yield shown[1]

    def seconds_of(self, frame: av.VideoFrame) -> float:
        """How long a picture is shown."""
        return (frame.duration or 0) * self._tick or 1 / self.timeline.average


def spans(
    pictures: Iterable[tuple[float, av.VideoFrame]],
) -> Iterator[tuple[av.VideoFrame, float, float | None]]:
    """Each picture with when it begins and when the next one does; None after the last."""
    shown = None
    for when, frame in pictures:
        if shown is not None:
            yield *shown, when
        shown = frame, when
    if shown is not None:
        yield *shown, None


class Timeline:
    """Collects when the packets of a video say that their pictures are shown.

    Args:
        path (Path): The video, for messages.
        average (float): Pictures per second by the headers.
        declared (float | None): Seconds that the pictures last by the headers.
        of_all (bool): Whether that is the end of all streams together.

    Attributes:
        origin (float | None): Time of the first picture in the file; None until it is decoded.
    """

    def __init__(self, path: Path, average: float, declared: float | None, of_all: bool) -> None:
        self.path, self.average, self.declared, self.of_all = path, average, declared, of_all
        self.origin: float | None = None
        self._begins = array('d')
        self._end = self._decoded = float('-inf')
        self._without = 0

    def add(self, packet: av.Packet, begin: float | None, tick: float) -> None:
        """Take note of a packet and its time, in the order of decoding.

        A time that goes back, as where files were joined byte by byte, raises a `VideoReadError`.
        """
        if begin is None:
            self._without += 1
            return
        self._begins.append(begin)
        self._end = max(self._end, begin + ((packet.duration or 0) * tick or 1 / self.average))
        decoded = begin if packet.dts is None else packet.dts * tick
        if decoded < self._decoded - max(BACK / self.average, 1.0):
            raise VideoReadError(
                f'{self.path}: its time stamps go back by {self._decoded - decoded:.1f} s; if it '
                'was joined from several files, give these, or encode it anew'
            )
        self._decoded = max(self._decoded, decoded)

    @property
    def times(self) -> np.ndarray:
        """Seconds (F,) from the first picture to each, rising."""
        if not self._begins:
            return np.arange(self._without) / self.average
        times = np.sort(np.frombuffer(self._begins)) - self.origin
        return times[times > -ROUNDING].clip(0)  # what lies before it could not be decoded

    @property
    def duration(self) -> float:
        """Seconds from the first picture to the end of the last one."""
        duration = self._end - self.origin if self._begins else self._without / self.average
        return round(duration, 6)  # 24., not 24.000000000000004

    @property
    def rate(self) -> float:
        """Pictures per second: the headers' where these agree with what was read."""
        times = self.times
        if len(times) < 2 or not times[-1] > 0:
            return self.average
        measured = (len(times) - 1) / times[-1]
        return self.average if abs(measured / self.average - 1) < 0.01 else float(measured)

    def require_step(self, last: float, time: float) -> None:
        """Refuse a leap of the time between two pictures: filling the gap could take for ever."""
        limit = last + PAUSE
        if self.declared is not None:
            limit = min(limit, BEYOND + max(last, self.declared))
        if time > limit:
            raise VideoReadError(
                f'{self.path}: its time stamps leap from {last:.1f} s to {time:.1f} s'
            )

    def check(self) -> dict[str, str]:
        """What is unusual about the times, once all packets have been read.

        If the time leaps, or the pictures end before the file does, it is a `VideoReadError`.
        """
        times = self.times
        steps = np.diff(times)
        for i in np.flatnonzero(steps > BEYOND):
            self.require_step(float(times[i]), float(times[i + 1]))
        notes = self._check_end()
        if self._without:
            notes['no time stamps'] = (
                f'of {self._without} frames; taken to be {self.average:.2f} fps'
            )
        uneven = int((abs(steps * self.rate - 1) > UNEVEN).sum())
        if uneven > max(1, SHARE * len(steps)):
            notes['variable frame rate'] = (
                f'{uneven} of {len(steps)} intervals are not those of '
                f'{self.rate:.2f} fps; followed by time stamps'
            )
        return notes

    def _check_end(self) -> dict[str, str]:
        """Compare the pictures' end with what the headers say."""
        missing = 0.0 if self.declared is None else self.declared - self.duration
        if abs(missing) <= max(MISSING, 0.02 * (self.declared or 0)):
            return {}
        lasts = f'{self.duration:.1f} s', f'{self.declared:.1f} s'
        if missing < 0 or _is_complete(self.path):
            if missing > 0 and self.of_all:  # sound or subtitles may well last longer
                return {}
            text = 'its header says {1}; its pictures last {0}'
            return {'wrong duration': text.format(*lasts)}
        message = 'its pictures end at {} of {}'.format(*lasts)
        if not self.of_all:
            raise VideoReadError(f'{self.path}: is cut off: {message}')
        return {'pictures end early': message}


def _is_complete(path: Path) -> bool:
    """Whether the outermost boxes of a file end where it ends; False if that cannot be told."""
    size, at = path.stat().st_size, 0
    with path.open('rb') as file:
        head = file.read(24)
        if head[:4] == b'RIFF':  # AVI
            return 0 < int.from_bytes(head[4:8], 'little') <= size - 8
        measure = _matroska_box if head[:4] == b'\x1aE\xdf\xa3' else _mp4_box
        while at < size:
            file.seek(at)
            length = measure(file.read(24))
            if length is None:
                return False
            at += length or size - at
    return at == size


def _mp4_box(head: bytes) -> int | None:
    """Bytes of a box that begins so; 0: to the end of the file; None: this is none."""
    length = int.from_bytes(head[:4], 'big')
    if length == 1:
        length = int.from_bytes(head[8:16], 'big')
    return length if head[4:8].isalnum() and (length >= 8 or not length) else None


def _matroska_box(head: bytes) -> int | None:
    """Likewise; None also where the length was not known when it was written."""
    begin = 9 - head[0].bit_length() if head and head[0] else 99  # bytes of the id
    if begin >= len(head) or not head[begin]:
        return None
    width = 9 - head[begin].bit_length()
    value = int.from_bytes(head[begin : begin + width], 'big') - (1 << 7 * width)
    return None if value == (1 << 7 * width) - 1 else begin + width + value


def quarters(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise that make a picture upright: a phone's note is followed."""
    return round(getattr(frame, 'rotation', 0) / 90) % 4


def upright(picture: np.ndarray, frame: av.VideoFrame, axes: tuple[int, int]) -> np.ndarray:
    """The array of a frame, turned about the axes of its rows and columns."""
    return np.ascontiguousarray(np.rot90(picture, quarters(frame), axes))


def turned(sides: tuple[int, int], frame: av.VideoFrame) -> tuple[int, int]:
    """Height and width of a frame whose upright picture has these, and the other way round."""
    return sides[::-1] if quarters(frame) % 2 else sides
