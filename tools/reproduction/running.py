"""Commands, and the runs that several experiments are made of."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/mmn_shapes.py'
WORK = Path('work_dirs/reproduce')


def run(*command, capture: bool = True) -> str:
    """What a command prints, run from the checkout's root; a failure ends everything."""
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


def train(
    name: str, seed: int, options: tuple[str, ...] = (), config: str = CONFIG, processes: int = 2
) -> tuple[Path, dict]:
    """The folder of a training, and its ``seconds`` and ``cpu_seconds`` (of all its processes).

    One that was finished before, with the same package and configs, is taken as it is, so that a
    long experiment that was stopped goes on where it was.
    """
    work = WORK / f'{name}_seed{seed}'
    code = run('git', 'rev-parse', 'HEAD:mmn_plugin', 'HEAD:configs').split()
    wanted = dict(code=code, config=config, options=list(options), processes=processes)
    record = ROOT / work / 'finished.json'
    found = json.loads(record.read_text()) if record.is_file() else {}
    if not wanted.items() <= found.items():
        shutil.rmtree(ROOT / work, ignore_errors=True)
        began, used = time.time(), cpu_seconds()
        command = [sys.executable, 'tools/train.py', config]
        if processes > 1:
            command = ['bash', 'tools/dist_train.sh', config, processes]
        run(*command, '--work-dir', work, '--seed', seed, *cfg_options(options))
        found = dict(wanted, seconds=time.time() - began, cpu_seconds=cpu_seconds() - used)
        record.write_text(json.dumps(found))
    return work, found


def cfg_options(options: tuple[str, ...]) -> tuple[str, ...]:
    """These options of a config on a command line."""
    return ('--cfg-options', *options) if options else ()


def cpu_seconds() -> float:
    """CPU time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train_and_test(
    name: str, seed: int, options: tuple[str, ...] = (), config: str = CONFIG
) -> dict[str, float]:
    """Metrics of the best checkpoint of a training in two processes, and seconds."""
    work, used = train(name, seed, options, config)
    metrics = metrics_of(best_of(work), work / 'test', options, config)
    return dict(seed=seed, train_seconds=used['seconds'], **metrics)


def best_of(work: Path) -> Path:
    """The newest of a run's best checkpoints."""
    return max((ROOT / work).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)


def metrics_of(
    checkpoint: Path, work: Path, options: tuple[str, ...] = (), config: str = CONFIG
) -> dict[str, float]:
    """Metrics of a checkpoint on the test split, without their prefix."""
    command = ('bash', 'tools/dist_test.sh', config, checkpoint, 2, '--work-dir', work)
    run(*command, *cfg_options(options))
    newest = max(path for path in (ROOT / work).glob('*/*.json') if path.parent.name == path.stem)
    return {
        key.partition('/')[2]: value
        for key, value in json.loads(newest.read_text()).items()
        if key.startswith(('grounding/', 'tubes/'))
    }


def shared_folder() -> Path:
    """The reference material, which is no part of the product (see MMN_SHARED in the README)."""
    folder = Path(os.environ.get('MMN_SHARED', ROOT.parent / 'shared'))
    if not folder.is_dir():
        sys.exit(f'{folder} does not exist; set MMN_SHARED to the folder of the reference material')
    return folder


def of_tool(name: str, *arguments) -> dict:
    """What an analysis tool writes with ``--json``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'figures.json'
        command = (sys.executable, f'tools/analysis_tools/{name}.py', *arguments, '--json', path)
        run(*command, capture=False)
        return json.loads(path.read_text())


def alone(function: Callable, *arguments):
    """What a function returns in a process of its own, whose memory is the function's alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        return pool.submit(function, *arguments).result()


def peak_mb() -> float:
    """Peak memory of this process; `getrusage` would give its parent's if that is larger."""
    return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) / 2**10
