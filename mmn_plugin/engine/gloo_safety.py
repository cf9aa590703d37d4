"""Two habits of processes that talk over gloo which end or hang a run now and then."""

import atexit
import os
import sys
import time

from torch import distributed

_PAUSE = 0.02  # seconds
_done: list[bool] = []


def make_gloo_safe() -> None:
    """Register, once per process, a pause before forks and the end of gloo before the end.

    A thread of gloo that lets go of a tensor enters Python for a moment. Where a data loader forks
    a worker in that moment, CPython before 3.12 leaves the worker a lock that nobody will release:
    it never starts, and the run waits for it for ever (2 of 6,000 forks right after a
    collective operation in a stress loop, none of 16,000 with the pause; the cause is inferred).
    Letting such threads finish first takes 0.02 s per worker.

    A process that ends without closing its group may be aborted while gloo's threads run.
    """
    if _done:
        return
    _done.append(True)
    if sys.version_info < (3, 12) and hasattr(os, 'register_at_fork'):
        os.register_at_fork(before=_pause)
    atexit.register(_close)


def _uses_gloo() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_backend() == 'gloo'
    )


def _pause() -> None:
    if _uses_gloo():
        time.sleep(_PAUSE)


def _close() -> None:
    if _uses_gloo():
        distributed.destroy_process_group()
