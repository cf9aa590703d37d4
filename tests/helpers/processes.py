"""What another process does meanwhile."""

import contextlib
import os
import signal
import subprocess
import sys
from multiprocessing import get_context

from torch.distributed import init_process_group

from mmn_plugin.engine import TrainingRecord

from .run_tool import ROOT


@contextlib.contextmanager
def in_another_process(action):
    """Do something in a forked process, which then waits to be killed; yields its id."""
    said, say = os.pipe()
    child = os.fork()
    if not child:
        try:
            action()
            os.write(say, b'.')
            signal.pause()
        finally:
            os._exit(1)
    os.close(say)
    try:
        assert os.read(said, 1) == b'.'
        yield child
    finally:
        os.close(said)
        end(child)


def in_ranks(folder, action, *arguments, ranks=2) -> list:
    """What ``action(rank, *arguments)`` returns in forked processes of one group, by rank."""
    context = get_context('fork')
    with context.Manager() as manager:
        results = manager.dict()
        group = [
            context.Process(target=_join, args=(results, folder, action, rank, ranks, arguments))
            for rank in range(ranks)
        ]
        for process in group:
            process.start()
        for process in group:
            process.join(600)
        return [results[rank] for rank in range(ranks)]


def _join(results, folder, action, rank, ranks, arguments) -> None:
    init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=ranks)
    results[rank] = action(rank, *arguments)


def end(child: int) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def train_in(folder, run: str = 'a') -> TrainingRecord:
    """Lock a work folder and note a training there."""
    record = TrainingRecord(folder)
    assert record.acquire() is None
    record.write(run)
    return record


def started(command, modules, cwd=None, start_new_session=False, **environment):
    """A script that starts Python's processes, which find a folder's modules; output is joined."""
    # torch's launcher must not take this process for one of its own
    kept = {key: value for key, value in os.environ.items() if key not in ('RANK', 'LOCAL_RANK')}
    path = os.pathsep.join([str(ROOT), str(modules), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=start_new_session,
        env=dict(kept, PYTHON=sys.executable, PYTHONPATH=path, OMP_NUM_THREADS='1', **environment),
    )
