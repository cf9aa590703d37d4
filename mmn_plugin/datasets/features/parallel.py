"""Work spread over processes or threads, and items prepared ahead."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.connection import Connection, wait
from typing import Any

END = object()


def run_parallel(work: Callable[[Any], Any], jobs: Sequence, workers: int) -> Iterator[tuple]:
    """Call a function for every job in other processes.

    Args:
        work (Callable): A picklable function of one job.
        jobs (Sequence): Its arguments.
        workers (int): Number of processes; with 0 the work is done here.

    Yields:
        tuple: (job, result), as results come in. Where this ends early, so do the processes, in
        the middle of their jobs.

    Raises:
        Exception: Whatever ``work`` raised first.
        RuntimeError: If a worker was killed.
    """
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    # Forked workers start at once; spawned ones would each import PyTorch again.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    reader, writer = context.Pipe(duplex=False)
    with (
        reader,
        writer,
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_begin, initargs=(work, reader)
        ) as pool,
    ):
        pending = {pool.submit(_do, job): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                'a worker process was killed (out of memory?); run the command '
                'again, with fewer workers: it goes on where it stopped'
            ) from error
        except BaseException:
            writer.send_bytes(b'stop')
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_threads(
    work: Callable[[Any, threading.Event], Any], jobs: Sequence, workers: int
) -> Iterator[tuple]:
    """Call a function for every job in threads.

    Args:
        work (Callable): A function of one job and of an event. It should return soon once that is
            set, which happens where this ends early.
        jobs (Sequence): Its first arguments.
        workers (int): Number of threads, at least 1 unless there are no jobs.

    Yields:
        tuple: (job, result), as results come in.

    Raises:
        Exception: Whatever ``work`` raised first; no thread is left by then.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        pending = {pool.submit(work, job, stop): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def prefetch(items: Generator, depth: int) -> Iterator:
    """Yield the items of an iterable, which a thread computes ahead.

    Args:
        items (Generator): Used by one thread at a time, and closed at the end.
        depth (int): Items that are ready or under way beside the one given out; 0: each is computed
            when it is asked for, by the thread that asks.

    Raises:
        Exception: Whatever computing an item raised, in its place.
    """
    if depth == 0:
        yield from items
        return
    with closing(items), ThreadPoolExecutor(1) as pool:
        ready = deque(pool.submit(next, items, END) for _ in range(depth))
        try:
            while (item := ready.popleft().result()) is not END:
                ready.append(pool.submit(next, items, END))
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any], stop: Connection) -> None:
    """Keep the work, which may hold a model, rather than send it along with every job."""
    global _work
    _work = work
    if torch := sys.modules.get('torch'):
        torch.set_num_threads(1)  # the pool is as wide as is wanted; and its threads do not fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent(stop)


def _do(job):
    return _work(job)


def _end_with_parent(stop: Connection) -> None:
    """End when the parent says so; or was killed, lest this one wait for work for ever."""
    parent = multiprocessing.parent_process()

    def end() -> None:
        wait([parent.sentinel, stop])  # never read: what is sent is for all workers
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
