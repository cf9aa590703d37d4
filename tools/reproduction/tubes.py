"""Spatio-temporal grounding: on Shapes, and against the published code's figures."""

import sys
from pathlib import Path

from .experiments import agreement_of
from .renderers import spread, spreads, table
from .running import ROOT, WORK, best_of, metrics_of, run, train

CONFIG = 'configs/mmn_shapes_tubes.py'
METRICS = ('m_vIoU', 'm_tIoU', 'vIoU@0.3', 'vIoU@0.5')
TRACKED = WORK / 'shapes_tracked'
ROWS = (
    ('held-out videos', ''),
    ('best with these tubes (oracle)', 'oracle_'),
    ('random tube and span (chance)', 'chance_'),
    ('built-in tracker on the raw videos', 'tracked/'),
    ("best with the tracker's tubes (oracle)", 'tracked/oracle_'),
)


def tubes(seeds: list[int]) -> dict:
    """MMN on Shapes' tubes; then the same checkpoints on tubes of the built-in tracker.

    Tubes are made where there are none. Of a stopped experiment the trainings that the same code
    finished are kept.
    """
    make_tubes('data/shapes_tubes')
    make_tubes(TRACKED, '--splits', 'test', '--tracker')
    return dict(per_seed=[of_seed(seed) for seed in seeds])


def make_tubes(folder: str | Path, *options) -> None:
    """Write tube files, unless they are there."""
    if not (ROOT / folder / 'test.h5').is_file():
        tool = 'tools/data/make_shapes_tubes.py'
        run(sys.executable, tool, 'data/shapes', '--out', folder, *options)


def of_seed(seed: int) -> dict[str, float]:
    """Figures of a training and its tests.

    Half of the CPU seconds, of all processes and threads together, is what training takes on two
    cores that nobody else uses.
    """
    work, seconds, cpu_seconds = train('tubes', seed, config=CONFIG, keep=True)
    best = best_of(work)
    tracked = (f'test_dataloader.dataset.data_root={ROOT / TRACKED}/',)
    of_tracker = metrics_of(best, work / 'tracked', tracked, CONFIG)
    return dict(
        seed=seed,
        train_seconds=seconds,
        train_cpu_seconds=cpu_seconds,
        **metrics_of(best, work / 'test', config=CONFIG),
        **{f'tracked/{name}': value for name, value in of_tracker.items()},
    )


def agreement_tubes() -> dict:
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
    wall, used = spreads(seeds, ('train_seconds', 'train_cpu_seconds'))
    first = seeds[0]
    return (
        table(['test split, %', *METRICS], rows)
        + f'\n\n{first["num_videos"]:.0f} videos, {first["num_sentences"]:.0f} sentences. '
        f'Training in 2 processes took {used} s of CPU time in all, startup and validation '
        f'included: by the clock between half of that and that, on cores that nobody else '
        f'uses ({wall} s on these, which other programs used too).'
    )
