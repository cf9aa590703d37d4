"""Batches prepared ahead of a network by threads, described one after the other, and timed."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np

from .video_stream import VideoReadError

END = object()  # after the last batch of a source


@dataclass
class Timing:
    """What processes that describe videos did with their time; timings can be added.

    Attributes:
        frames (int): Frames that are described.
        waiting (float): Seconds in which nothing was prepared, so that the network waited.
        computing (float): Seconds in which the network was given batches, or its rows waited for.
    """

    frames: int = 0
    waiting: float = 0.0
    computing: float = 0.0

    def __add__(self, other: 'Timing') -> 'Timing':
        return Timing(
            self.frames + other.frames,
            self.waiting + other.waiting,
            self.computing + other.computing,
        )

    def speed(self, seconds: float) -> dict[str, float]:
        """Frames per second of a run of so many seconds, and the shares of the time in `Timing`."""
        busy = max(self.waiting + self.computing, 1e-9)
        return dict(
            frames=self.frames,
            seconds=seconds,
            frames_per_second=self.frames / max(seconds, 1e-9),
            waiting=self.waiting / busy,
            computing=self.computing / busy,
        )


class InTurn:
    """Prepares batches when they are asked for, one source after the other.

    Args:
        sources (Iterable): What is to be prepared: anything.
        prepare (Callable): From a source to a generator of its batches.
    """

    ready = False  # what comes next has yet to be prepared

    def __init__(self, sources: Iterable, prepare: Callable[[Any], Generator]) -> None:
        self._items = self._prepare(sources, prepare)

    @staticmethod
    def _prepare(sources: Iterable, prepare: Callable[[Any], Generator]) -> Iterator[tuple]:
        for source in sources:
            with closing(prepare(source)) as batches:
                try:
                    while True:
                        yield source, next(batches)
                except StopIteration:
                    yield source, END
                except Exception as error:
                    yield source, error

    def get(self) -> tuple | None:
        """A source and its next batch, `END` or what was raised; None after all of them."""
        return next(self._items, None)

    def close(self) -> None:
        """Prepare no more."""
        self._items.close()


class Ahead:
    """Prepares batches of several sources in threads, before they are asked for.

    A source belongs to one thread, which takes the next one as soon as it has prepared the last
    batch, whatever became of the batches by then. ``2 * threads`` batches at most are being
    prepared or wait to be taken.

    Args:
        sources (Iterable): As of `InTurn`.
        prepare (Callable): Likewise; called by several threads at once.
        threads (int): Number of threads.
    """

    def __init__(
        self, sources: Iterable, prepare: Callable[[Any], Generator], threads: int
    ) -> None:
        self._prepare, self._threads = prepare, threads
        self._prepared: SimpleQueue = SimpleQueue()
        self._room, self._stopped = threading.Semaphore(2 * threads), threading.Event()
        self._pool = ThreadPoolExecutor(threads, 'decoder')
        self._left = len([self._pool.submit(self._run, source) for source in sources])

    def _run(self, source: Any) -> None:
        try:
            with closing(self._prepare(source)) as batches:
                while self._room.acquire() and not self._stopped.is_set():
                    self._prepared.put((source, next(batches)))
        except StopIteration:
            self._prepared.put((source, END))
        except BaseException as error:  # raised where it is taken
            self._prepared.put((source, error))

    @property
    def ready(self) -> bool:
        """Whether something can be taken at once."""
        return not self._prepared.empty()

    def get(self) -> tuple | None:
        """As of `InTurn`, in the order in which they are ready; the batches of one in theirs."""
        if not self._left:
            return None
        source, item = self._prepared.get()
        self._room.release()
        self._left -= item is END or isinstance(item, BaseException)
        return source, item

    def close(self) -> None:
        """End the threads, each after the batch that it is at."""
        self._stopped.set()
        self._room.release(self._threads)
        self._pool.shutdown(cancel_futures=True)


def described(
    start_batch: Callable[[Any], Callable[[], np.ndarray]],
    prepared: InTurn | Ahead,
    timing: Timing,
) -> Iterator[tuple[Any, Any]]:
    """Describe what is prepared, batch by batch.

    The rows of a batch are waited for when the next one has been started, if there is one by then:
    an accelerator always has the next batch to go on with.

    Args:
        start_batch (Callable): As of `FeatureExtractor`.
        prepared (InTurn | Ahead): Closed at the end.
        timing (Timing): Of the waiting and the computing, which is added to.

    Yields:
        tuple: A source and rows (n, D) of it, `END`, or what was raised, in the order of
        ``prepared``.
    """
    late = None  # what was started last
    with closing(prepared):
        while True:
            if late is not None and not prepared.ready:
                yield _collected(late, timing)
                late = None
            began = perf_counter()
            item = prepared.get()
            timing.waiting += perf_counter() - began
            if item is None:
                break
            started = _started(start_batch, *item, timing)
            del item  # the batch is the network's now
            if late is not None:
                yield _collected(late, timing)
            late = started
    if late is not None:
        yield _collected(late, timing)


def _started(start_batch: Callable, source: Any, batch: Any, timing: Timing) -> tuple:
    if batch is END or isinstance(batch, BaseException):
        return source, batch
    began = perf_counter()
    try:
        rows = start_batch(batch)
    except VideoReadError as error:
        rows = error
    timing.computing += perf_counter() - began
    return source, rows


def _collected(started: tuple, timing: Timing) -> tuple:
    source, rows = started
    began = perf_counter()
    found = rows() if callable(rows) else rows  # END, or what was raised
    timing.computing += perf_counter() - began
    return source, found
