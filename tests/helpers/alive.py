"""How many of the frames that a stream gives out are in use at the same time."""

import threading
import weakref
from collections.abc import Iterable, Iterator

import numpy as np


class Frame(np.ndarray):
    """An array that can be watched."""


class Alive:
    """Counts frames while somebody holds them: ``most`` at once, ``all`` that were given out."""

    def __init__(self):
        self.now = self.most = self.all = 0
        self._lock = threading.RLock()

    def watch(self, arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for array in arrays:
            yield self._frame(array)

    def _frame(self, array: np.ndarray) -> Frame:
        self._change(1)
        frame = array.view(Frame)
        weakref.finalize(frame, self._change, -1)
        return frame

    def _change(self, step: int) -> None:
        with self._lock:
            self.now += step
            self.most = max(self.most, self.now)
            self.all += step > 0
