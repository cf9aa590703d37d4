"""Spatio-temporal grounding: on Shapes, and against the published code's figures."""

import json
import resource
import sys
import time
from argparse import Namespace
from pathlib import Path

from .experiments import agreement_of
from .renderers import spread, table
from .running import ROOT, WORK, run

CONFIG = 'configs/mmn_shapes_tubes.py'
PREFIX = 'tubes/'
METRICS = ('m_vIoU', 'm_tIoU', 'vIoU@0.3', 'vIoU@0.5')
TRACKED = WORK / 'shapes_tracked'
ROWS = (
    ('held-out videos', ''),
    ('best with these tubes (oracle)', 'oracle_'),
    ('random tube and span (chance)', 'chance_'),
    ('built-in tracker on the raw videos', 'tracked/'),
    ("best with the tracker's tubes (oracle)", 'tracked/oracle_'),
)


def tubes(args: Namespace) -> dict:
    """MMN on Shapes' tubes; then the same checkpoints on tubes of the built-in tracker.

    Tubes are made where there are none. A stopped experiment goes on after the last seed that the
    same commit finished.
    """
    make_tubes('data/shapes_tubes')
    return dict(per_seed=[of_seed(seed) for seed in args.seeds])


def make_tubes(folder: str | Path, *options) -> None:
    """Write tube files, unless they are there."""
    if not (ROOT / folder / 'test.h5').is_file():
        run(
            sys.executable,
            'tools/data/make_shapes_tubes.py',
            'data/shapes',
            '--out',
            folder,
            *options,
        )


def of_seed(seed: int) -> dict[str, float]:
    """Figures of a training and its tests."""
    work = WORK / f'tubes_seed{seed}'
    commit = run('git', '-C', ROOT, 'rev-parse', 'HEAD', capture=True).strip()
    record = ROOT / work / f'{commit}.json'
    if record.is_file():
        return json.loads(record.read_text())
    found = dict(seed=seed, **train(work, seed))
    best = max((ROOT / work).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    found |= test(best, work / 'test')
    make_tubes(TRACKED, '--splits', 'test', '--tracker')
    tracked = test(
        best,
        work / 'tracked',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={ROOT / TRACKED}/',
    )
    found |= {f'tracked/{name}': value for name, value in tracked.items()}
    record.write_text(json.dumps(found))
    return found


def train(work: Path, seed: int) -> dict[str, float]:
    """Train in two processes; seconds, and CPU seconds of all processes and threads together.

    Half of the CPU seconds is what training takes on two cores that nobody else uses.
    """
    began, used = time.time(), cpu_seconds()
    run('bash', 'tools/dist_train.sh', CONFIG, 2, '--work-dir', work, '--seed', seed, capture=True)
    return dict(train_seconds=time.time() - began, train_cpu_seconds=cpu_seconds() - used)


def cpu_seconds() -> float:
    """CPU time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test(checkpoint: Path, work: Path, *options) -> dict[str, float]:
    """Figures of a checkpoint on the test split."""
    run(
        'bash',
        'tools/dist_test.sh',
        CONFIG,
        checkpoint,
        2,
        '--work-dir',
        work,
        *options,
        capture=True,
    )
    newest = max(path for path in (ROOT / work).glob('*/*.json') if path.parent.name == path.stem)
    return {
        key.removeprefix(PREFIX): value
        for key, value in json.loads(newest.read_text()).items()
        if key.startswith(PREFIX)
    }


def agreement_tubes(args: Namespace) -> dict:
    """Differences from the published HC-STVG code's figures, quantity by quantity."""
    return agreement_of(lambda name: name.startswith('hcstvg'))


def render_tubes(result: dict) -> str:
    """Figures beside what is possible and what comes by chance, and what training takes."""
    seeds = result['per_seed']
    rows = [
        [
            label,
            *(
                spread([seed[prefix + name] for seed in seeds]) if prefix + name in seeds[0] else ''
                for name in METRICS
            ),
        ]
        for label, prefix in ROWS
    ]
    wall, used = (
        spread([seed[name] for seed in seeds]) for name in ('train_seconds', 'train_cpu_seconds')
    )
    first = seeds[0]
    return (
        table(['test split, %', *METRICS], rows)
        + f'\n\n{first["num_videos"]:.0f} videos, {first["num_sentences"]:.0f} sentences. '
        f'Training in 2 processes took {used} s of CPU time in all, startup and validation '
        f'included: by the clock between half of that and that, on cores that nobody else '
        f'uses ({wall} s on these, which other programs used too).'
    )
