"""A video stream from beginning to end, with what is wrong with it."""
import re
from collections.abc import Iterator
from pathlib import Path

import av

from .video_read_error import VideoReadError

DAMAGED = 0.1  # share of packets that may be damaged; from there on a video is not usable
MISSING = 1.  # seconds that may be missing at the end (and 2 %): headers are rounded


class VideoPackets:
    """Decodes the first video stream of a container and notices damage.

    A packet that cannot be decoded is left out, so that the frame before it stays. A video with
    too many of them, or whose pictures end long before its header says, is an error, since
    what is missing would shift or still the rest.

    Args:
        path (Path): The video, for messages.
        container (av.container.InputContainer): The opened video.

    Attributes:
        declared (float | None): Seconds that the pictures last according to the headers.
        rate (float): Average frames per second.
        notes (dict[str, str]): What was unusual, kind -> details.

    Raises:
        VideoReadError: If there is no video stream, or only the cover of an audio file.
    """

    def __init__(self, path: Path, container) -> None:
        self.path = path
        self.container = container
        self.stream = self._choose_stream()
        self.stream.thread_count = 1  # videos are shared among processes; threads gain little
        self.rate = float(self.stream.average_rate or 25)
        self.notes: dict[str, str] = {}
        self.declared, self._of_container = self._declared_end()
        self._begin: float | None = None
        self._end = 0.
        self._good = self._bad = 0

    def _choose_stream(self):
        streams = [stream for stream in self.container.streams.video if not _is_cover(stream)]
        if streams:
            return streams[0]
        others = sorted({stream.type for stream in self.container.streams}) or ['nothing']
        what = 'a cover picture and no video' if self.container.streams.video else 'no video stream'
        raise VideoReadError(f'{self.path}: holds {what} (only {", ".join(others)})')

    def _declared_end(self) -> tuple[float | None, bool]:
        """Seconds that the stream lasts; and whether that is the end of all streams together."""
        stream = self.stream
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base), False
        tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', ''))
        if tag:  # Matroska
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3]), False
        if not self.container.duration:
            return None, True
        return self.container.duration / av.time_base, len(self.container.streams) > 1

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames that can be decoded.

        Raises:
            VideoReadError: If too many cannot.
        """
        for packet in self.container.demux(self.stream):
            try:
                decoded = packet.decode()
            except av.error.InvalidDataError:
                self._bad += 1
                continue
            self._measure(packet)
            damaged = any(getattr(frame, 'is_corrupt', False) for frame in decoded)
            self._bad += damaged
            self._good += bool(packet.size) and not damaged
            yield from decoded
        if self._bad > DAMAGED * (self._bad + self._good):
            raise VideoReadError(f'{self.path}: {self._bad} of {self._bad + self._good} packets '
                                 'are damaged')
        if self._bad:
            self.notes['damaged packets'] = (f'{self._bad} of {self._bad + self._good} left out or '
                                             'mended by the decoder')

    def _measure(self, packet) -> None:
        if packet.pts is None or packet.time_base is None:
            return
        begin = float(packet.pts * packet.time_base)
        length = float((packet.duration or 0) * packet.time_base) or 1 / self.rate
        self._begin = begin if self._begin is None else min(begin, self._begin)
        self._end = max(self._end, begin + length)

    def check_end(self) -> None:
        """Compare the end of the pictures with what the headers say.

        Raises:
            VideoReadError: If they end long before.
        """
        if self.declared is None or self._begin is None:
            return
        read = self._end - self._begin
        if self.declared - read <= max(MISSING, 0.02 * self.declared):
            return
        message = f'its pictures end at {read:.1f} s of {self.declared:.1f} s'
        if not self._of_container:
            raise VideoReadError(f'{self.path}: is cut off: {message}')
        # another stream may well last longer than the pictures
        self.notes['pictures end early'] = f'{message}; the last one stays'


def _is_cover(stream) -> bool:
    disposition = getattr(stream, 'disposition', None)
    return disposition is not None and 'attached_pic' in repr(disposition)
