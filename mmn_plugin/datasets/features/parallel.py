"""Work spread over processes."""
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any


def run_parallel(work: Callable[[Any], Any], jobs: Sequence, workers: int) -> Iterator[tuple]:
    """Call a function for every job in other processes.

    Args:
        work (Callable): A picklable function of one job.
        jobs (Sequence): Its arguments.
        workers (int): Number of processes; with 0 the work is done here.

    Yields:
        tuple: (job, result), as results come in.

    Raises:
        Exception: Whatever ``work`` raised first.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
    """
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    # Forked workers start at once; spawned ones would each import PyTorch again.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        # Several jobs a turn: the way between the processes costs more than a small video.
        size = max(1, min(8, len(jobs) // (4 * workers)))
        parts = [jobs[i:i + size] for i in range(0, len(jobs), size)]
        pending = {pool.submit(_run_part, work, part): part for part in parts}
        try:
            for future in as_completed(pending):
                yield from zip(pending[future], future.result(), strict=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_part(work: Callable, part: Sequence) -> list:
    return [work(job) for job in part]


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
