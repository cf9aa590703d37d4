"""Runs of a tool in real processes that need not import everything anew.

The fork server of multiprocessing imports it and forks one process per rank, with the environment
that ``torchrun`` would give. A rank that ends badly ends the others, as there, and so does a run of
more than `PATIENCE` seconds. Tests share one through the fixture ``zygote``.
"""

import gc
import multiprocessing
import os
import runpy
import socket
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

from helpers.kept_runs import skip_formatting

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600
IMPORTED = (  # what a run would import
    'mmn_plugin',
    'torch._dynamo',
    'matplotlib.figure',
    'matplotlib.backends.backend_agg',
    'mmaction.datasets',
    'mmaction.engine',
    'mmaction.evaluation',
    'mmaction.models',
    'mmaction.visualization',
    'transformers.models.distilbert.modeling_distilbert',
)


class Zygote:
    """Start runs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context('forkserver')
        self._context.set_forkserver_preload([*IMPORTED, __name__])

    @staticmethod
    def free_port() -> int:
        """A port that nobody listens on."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            return free.getsockname()[1]

    def start(
        self,
        *arguments,
        ranks: int = 2,
        tool: str | Path = 'train.py',
        output: Path,
        launcher: bool = True,
        **environment,
    ) -> list[int]:
        """Fork the ranks of ``tools/<tool> <arguments>``; returns their process ids.

        A `tool` may be the path of any script, and is not told of its `launcher` where that is
        false.
        """
        request = dict(
            arguments=list(map(str, arguments)),
            ranks=ranks,
            tool=str(tool),
            output=str(output),
            launcher=launcher,
            environment=dict(os.environ, **environment),  # not that of the fork server's start
        )
        port = self.free_port()
        self._ranks = [
            self._context.Process(target=_rank, args=(request, rank, port)) for rank in range(ranks)
        ]
        for rank in self._ranks:
            rank.start()
        return [rank.pid for rank in self._ranks]

    def is_running(self) -> bool:
        """Whether a rank started last has not ended."""
        return any(rank.is_alive() for rank in self._ranks)

    def wait(self) -> list[int]:
        """Exit codes of the ranks started last, negative for a signal."""
        limit, deadline = time.monotonic() + PATIENCE, None
        while running := [rank for rank in self._ranks if rank.is_alive()]:
            wait([rank.sentinel for rank in running], timeout=1)
            now, failed = time.monotonic(), any(rank.exitcode for rank in self._ranks)
            if deadline is None and (failed or now > limit):
                deadline = now + 30
                for rank in running:
                    rank.terminate()
            if deadline is not None and now > deadline:
                for rank in running:
                    rank.kill()
        return [rank.exitcode for rank in self._ranks]

    def run(self, *arguments, output: Path, **options) -> tuple[list[int], str]:
        """Exit codes, and everything the ranks printed."""
        self.start(*arguments, output=output, **options)
        return self.wait(), output.read_text()


def _rank(request: dict, rank: int, port: int) -> None:
    import torch

    gc.freeze()  # a run's own collections pass over all that was imported
    torch.set_num_threads(1)
    skip_formatting()
    os.setpgid(0, 0)
    handle = os.open(request['output'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    given = request['environment']
    path = os.pathsep.join(map(str, (ROOT, ROOT / 'tests', given.get('PYTHONPATH', ''))))
    os.environ.clear()
    os.environ.update(given, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', PYTHONPATH=path)
    if request['ranks'] > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(request['ranks']),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
    script = ROOT / 'tools' / request['tool']
    sys.argv = [str(script), *request['arguments']]
    if request.get('launcher', True):
        sys.argv += ['--launcher', 'pytorch' if request['ranks'] > 1 else 'none']
    runpy.run_path(str(script), run_name='__main__')
