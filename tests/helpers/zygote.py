"""Runs of a tool in real processes that need not import everything anew.

One process imports the package and waits; every run is forked from it, one process per rank, with
the environment that ``torchrun`` would give. A rank that ends badly ends the others, as there, and
so does a run of more than `PATIENCE` seconds. Tests share one through the fixture ``zygote``.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600


class Zygote:
    """Start runs; a context manager."""

    @staticmethod
    def free_port() -> int:
        """A port that nobody listens on."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            return free.getsockname()[1]

    def __enter__(self):
        path = os.pathsep.join(map(str, (ROOT, ROOT / 'tests', os.environ.get('PYTHONPATH', ''))))
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1'),
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)

    def start(
        self,
        *arguments,
        ranks: int = 2,
        tool: str | Path = 'train.py',
        output: Path,
        launcher: bool = True,
        cwd: Path | str = '.',
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
            cwd=str(cwd),
            environment=environment,
        )
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def wait(self) -> list[int]:
        """Exit codes of the ranks started last, negative for a signal."""
        return json.loads(self.process.stdout.readline())

    def run(self, *arguments, output: Path, **options) -> tuple[list[int], str]:
        """Exit codes, and everything the ranks printed."""
        self.start(*arguments, output=output, **options)
        return self.wait(), output.read_text()


def _rank(request: dict, rank: int, port: int) -> None:
    import runpy

    os.setpgid(0, 0)
    handle = os.open(request['output'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(request.get('cwd', '.'))
    os.environ.update(request['environment'])
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


def _fork(request: dict, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    _rank(request, rank, port)
    sys.exit(0)  # out of _serve, and through the end of the interpreter as any process


def _import_everything() -> None:
    """Import what a run would, so that its processes need not."""
    import importlib

    from helpers.formatting import remember_formatting

    for name in (
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
    ):
        importlib.import_module(name)
    remember_formatting()
    gc.collect()
    gc.freeze()  # a run's own collections pass over all this


def _serve() -> None:
    _import_everything()
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        port = Zygote.free_port()
        children = [_fork(request, rank, port) for rank in range(request['ranks'])]
        print(json.dumps(children), flush=True)
        codes, deadline, limit = {}, None, time.monotonic() + PATIENCE
        while len(codes) < len(children):
            for child in set(children) - codes.keys():
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    codes[child] = os.waitstatus_to_exitcode(status)
            if deadline is None and (any(codes.values()) or time.monotonic() > limit):
                deadline = time.monotonic() + 30
                for child in set(children) - codes.keys():
                    os.kill(child, signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                for child in set(children) - codes.keys():
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        print(json.dumps([codes[child] for child in children]), flush=True)


if __name__ == '__main__':
    _serve()
