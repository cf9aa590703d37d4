"""Commands, and the runs that several experiments are made of."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

from mmengine.config import DictAction

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/mmn_shapes.py'
WORK = Path('work_dirs/reproduce')


def run(*command, options: Sequence[str] = (), capture: bool = True) -> str:
    """What a command prints, run from the checkout's root; a failure ends everything.

    ``options`` are those of its config.
    """
    if options:
        command = (*command, '--cfg-options', *options)
    print('$', *command, flush=True)
    result = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=dict(os.environ, PYTHON=sys.executable),
        text=True,
        stdout=subprocess.PIPE if capture else None,
    )
    if result.returncode:
        sys.exit(f'{command[0]} ended with exit code {result.returncode}\n{result.stdout or ""}')
    return result.stdout or ''


def parsed(options: Sequence[str]) -> dict:
    """Options of a command line as what a config is changed by."""
    values = dict(option.split('=', 1) for option in options)
    return {key: DictAction._parse_iterable(value) for key, value in values.items()}


def train(
    name: str, seed: int, options: tuple[str, ...] = (), config: str = CONFIG, processes: int = 2
) -> tuple[Path, dict]:
    """The folder of a training, and its ``seed``, ``train_seconds``, ``train_cpu_seconds`` and
    ``train_commit``.

    One that was finished before, with the same package and configs, is taken as it is, so that a
    long experiment that was stopped goes on where it was.
    """
    work = WORK / f'{name}_seed{seed}'
    wanted = dict(
        code=state_of_code(), config=config, options=list(options), processes=processes, seed=seed
    )
    record = ROOT / work / 'finished.json'
    found = json.loads(record.read_text()) if record.is_file() else {}
    if not wanted.items() <= found.items():
        shutil.rmtree(ROOT / work, ignore_errors=True)
        began, used = time.time(), cpu_seconds()
        command = [sys.executable, 'tools/train.py', config]
        if processes > 1:
            command = ['bash', 'tools/dist_train.sh', config, processes]
        run(*command, '--work-dir', work, '--seed', seed, options=options)
        seconds, used = time.time() - began, cpu_seconds() - used
        commit = run('git', 'rev-parse', '--short', 'HEAD').strip()
        measured = dict(train_seconds=seconds, train_cpu_seconds=used, train_commit=commit)
        found = wanted | measured
        record.write_text(json.dumps(found))
    told = ('seed', 'train_seconds', 'train_cpu_seconds', 'train_commit')
    return work, {key: found[key] for key in told}


def state_of_code() -> list[str]:
    """What the last commit's package and configs are known by."""
    return run('git', 'rev-parse', 'HEAD:mmn_plugin', 'HEAD:configs').split()


def kept(
    name: str, seed: int, config: str, options: tuple[str, ...] = (), processes: int = 1
) -> tuple[Path, dict]:
    """Best checkpoint and record of another experiment's training, run where it is not there.

    One of an earlier state of the package serves as well; the record says which.
    """
    work = WORK / f'{name}_seed{seed}'
    record = ROOT / work / 'finished.json'
    found = json.loads(record.read_text()) if record.is_file() else {}
    if found.get('config') != config or found.get('options') != list(options):
        train(name, seed, options, config, processes)
    return best_of(work), json.loads(record.read_text())


def cpu_seconds() -> float:
    """CPU time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train_and_test(
    name: str, seed: int, options: tuple[str, ...] = (), config: str = CONFIG
) -> dict[str, float]:
    """What training in two processes took, and metrics of its best checkpoint."""
    work, used = train(name, seed, options, config)
    return used | metrics_of(best_of(work), work / 'test', options, config)


def best_of(work: Path) -> Path:
    """The newest of a run's best checkpoints."""
    return max((ROOT / work).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)


def metrics_of(
    checkpoint: Path, work: Path, options: tuple[str, ...] = (), config: str = CONFIG
) -> dict[str, float]:
    """Metrics of a checkpoint on the test split, without their prefix."""
    command = ('bash', 'tools/dist_test.sh', config, checkpoint, 2, '--work-dir', work)
    run(*command, options=options)
    newest = max(path for path in (ROOT / work).glob('*/*.json') if path.parent.name == path.stem)
    return {
        key.partition('/')[2]: value
        for key, value in json.loads(newest.read_text()).items()
        if key.startswith(('grounding/', 'tubes/'))
    }


def shared_folder(name: str) -> Path:
    """What is no part of the product: ``golden`` (the published code's figures), ``data``."""
    folder = Path(os.environ.get('MMN_SHARED', ROOT.parent / 'shared')) / name
    if not folder.is_dir():
        sys.exit(f'{folder} does not exist: set MMN_SHARED to the folder that holds `{name}`')
    return folder


def of_tool(name: str, *arguments) -> dict:
    """What an analysis tool writes with ``--json``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'figures.json'
        command = (sys.executable, f'tools/analysis_tools/{name}.py', *arguments, '--json', path)
        run(*command, capture=False)
        return json.loads(path.read_text())


def process_pool() -> ProcessPoolExecutor:
    """A process for each core, as many runs at once, each in one thread."""
    os.environ['OMP_NUM_THREADS'] = '1'
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context('spawn'))


def in_process(function: Callable[..., dict], *arguments, limit: float) -> dict:
    """What a function returns, or its ``error``, and ``part_seconds``.

    It runs in a process of its own, which is killed after so many seconds, or where this ends
    early; so are the processes that it started.
    """
    began, context = time.monotonic(), multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    found = dict(error=f'stopped after {limit:.0f} s')
    try:
        if receiver.poll(limit):
            found = receiver.recv()
    except EOFError:
        process.join()
        found = dict(error=f'its process ended with exit code {process.exitcode}')
    finally:
        with suppress(ProcessLookupError):  # it has not begun, or all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    return found | dict(part_seconds=time.monotonic() - began)


def _send(sender, function: Callable, arguments: tuple) -> None:
    os.setsid()  # a group of its own, which ends as one
    try:
        sender.send(function(*arguments))
    except (Exception, SystemExit):
        sender.send(dict(error=traceback.format_exc(limit=-3)))
