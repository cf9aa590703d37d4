"""Work spread over processes."""
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
        RuntimeError: If a worker was killed.
    """
    if workers == 0:
        yield from ((job, work(job)) for job in jobs)
        return
    # Forked workers start at once; spawned ones would each import PyTorch again.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin,
                             initargs=(work,)) as pool:
        pending = {pool.submit(_do, job): job for job in jobs}
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise RuntimeError('a worker process was killed (out of memory?); run the command '
                               'again, with fewer workers: it goes on where it stopped') from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any]) -> None:
    """Keep the work, which may hold a model, rather than send it along with every job."""
    global _work
    _work = work
    if torch := sys.modules.get('torch'):
        torch.set_num_threads(1)  # the pool is as wide as is wanted; and its threads do not fork
    _end_with_parent()


def _do(job):
    return _work(job)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
