"""Work in other processes, which end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from mmn_plugin.errors import OperationError


def run_parallel(work: Callable[[Any], Any], jobs: Sequence, workers: int) -> Iterator[tuple]:
    """Call a function for every job in other processes.

    Args:
        work (Callable): A picklable function of one job.
        jobs (Sequence): Its arguments.
        workers (int): Number of processes; with 0 the work is done here.

    Yields:
        tuple: (job, result), as results come in. Where this ends early, so do the processes, in
        the middle of their jobs; so it is where ``work`` raises, and that is raised here.

    Raises:
        RuntimeError: If a worker was killed.
    """
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    # Forked workers start at once; spawned ones would each import PyTorch again.
    context, others = multiprocessing.get_context('fork'), {*multiprocessing.active_children()}

    def stop() -> None:
        for process in {*multiprocessing.active_children()} - others:
            process.terminate()

    try:
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(work,)) as pool:
            pending = {pool.submit(_do, job): job for job in jobs}
            try:
                for future in as_completed(pending):
                    yield pending.pop(future), future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                stop()
                raise
    except BrokenProcessPool as error:
        raise OperationError(
            'a worker process was killed (out of memory?); run the command '
            'again, with fewer workers: it goes on where it stopped'
        ) from error


_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any]) -> None:
    """Keep the work, which may hold a model, rather than send it along with every job."""
    global _work
    _work = work
    torch.set_num_threads(1)  # the pool is as wide as is wanted; and its threads do not fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent says what to do
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(job):
    return _work(job)


def _end_with_parent() -> None:
    """Do not wait for work for ever where the parent was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
