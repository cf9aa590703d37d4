"""When frames are shown."""
from pathlib import Path

from .video_read_error import VideoReadError

UNEVEN = 0.25  # deviation from the average interval that counts as uneven
SHARE = 0.02  # share of uneven intervals from which on a video is said to have a variable rate
BEYOND = 60.  # seconds of a leap past the declared end that is taken for a damaged time stamp
PAUSE = 3600.  # seconds from one frame to the next that are, wherever they are


class FrameClock:
    """Reads the time stamps of a video's frames.

    Args:
        path (Path): The video, for messages.
        rate (float): Average frames per second, for frames without a time stamp.
        declared (float | None): Seconds that the video lasts, if that is known.

    Attributes:
        last (float): Seconds from the first frame to the latest one.
    """

    def __init__(self, path: Path, rate: float, declared: float | None) -> None:
        self.path = path
        self.rate = rate
        self.declared = declared
        self.last = 0.
        self._origin: float | None = None
        self._intervals = self._uneven = self._without = 0

    def read(self, frame) -> float:
        """Seconds from the first frame to this one.

        Raises:
            VideoReadError: If the time leaps: filling the gap could take for ever.
        """
        first = self._origin is None
        if frame.time is None:
            self._without += 1
            time = 0. if first else self.last + 1 / self.rate
            self._origin = 0. if first else self._origin
        else:
            self._origin = frame.time if first else self._origin
            time = frame.time - self._origin
        limit = self.last + PAUSE
        if self.declared is not None:
            limit = min(limit, BEYOND + max(self.last, self.declared))
        if time > limit:
            raise VideoReadError(f'{self.path}: its time stamps leap from {self.last:.1f} s to '
                                 f'{time:.1f} s')
        if not first:
            self._intervals += 1
            self._uneven += abs((time - self.last) * self.rate - 1) > UNEVEN
        self.last = max(time, self.last)
        return time

    @property
    def notes(self) -> dict[str, str]:
        """Whether the frame rate varies, or is only guessed."""
        if self._without:
            return {'no time stamps': f'of {self._without} frames; taken to be {self.rate:.2f} fps'}
        if self._uneven <= max(1, SHARE * self._intervals):
            return {}
        return {'variable frame rate': f'{self._uneven} of {self._intervals} intervals are not '
                                       f'those of {self.rate:.2f} fps; followed by time stamps'}
