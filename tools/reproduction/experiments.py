"""Trainings on Shapes, agreement, speed, and damaged videos: each experiment with its table."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path

from .running import (
    ROOT,
    WORK,
    best_of,
    metrics_of,
    of_tool,
    run,
    shared_folder,
    train,
    train_and_test,
)
from .tables import CHANCE, METRICS, spreads, table, title


def shapes(seeds: list[int]) -> dict:
    """MMN on Shapes."""
    return dict(per_seed=[train_and_test('shapes', seed) for seed in seeds])


def render_shapes(result: dict) -> str:
    """Figures of all, unseen and random ranking."""
    prefixes = {'all sentences': '', 'unseen combinations': 'unseen/', CHANCE: 'chance/'}
    rows = [
        [label, *spreads(result['per_seed'], [prefix + name for name in METRICS])]
        for label, prefix in prefixes.items()
    ]
    return table(['test split, %', *map(title, METRICS)], rows)


TUBES = 'configs/mmn_shapes_tubes.py'
TUBE_METRICS = ('m_vIoU', 'm_tIoU', 'vIoU@0.3', 'vIoU@0.5')
TRACKED = WORK / 'shapes_tracked'
TUBE_ROWS = {
    'held-out videos': '',
    'best with these tubes (oracle)': 'oracle_',
    'random tube and span (chance)': 'chance_',
    'built-in tracker on the raw videos': 'tracked/',
    "best with the tracker's tubes (oracle)": 'tracked/oracle_',
}


def tubes(seeds: list[int]) -> dict:
    """MMN on Shapes' tubes; then the same checkpoints on tubes of the built-in tracker."""
    for folder, *options in (['data/shapes_tubes'], [TRACKED, '--splits', 'test', '--tracker']):
        if not (ROOT / folder / 'test.h5').is_file():
            tool = 'tools/data/make_shapes_tubes.py'
            run(sys.executable, tool, 'data/shapes', '--out', folder, *options)
    per_seed = []
    for seed in seeds:
        work, used = train('tubes', seed, config=TUBES)
        tracker = (f'test_dataloader.dataset.data_root={ROOT / TRACKED}/',)
        tracked = metrics_of(best_of(work), work / 'tracked', tracker, TUBES)
        per_seed.append(
            used
            | metrics_of(best_of(work), work / 'test', config=TUBES)
            | {f'tracked/{name}': value for name, value in tracked.items()}
        )
    return dict(per_seed=per_seed)


def render_tubes(result: dict) -> str:
    """Figures beside what is possible and what comes by chance, and what training takes."""
    seeds = result['per_seed']
    rows = [
        [label, *spreads(seeds, [prefix + name for name in TUBE_METRICS])]
        for label, prefix in TUBE_ROWS.items()
    ]
    wall, used = spreads(seeds, ('train_seconds', 'train_cpu_seconds'))
    return (
        table(['test split, %', *TUBE_METRICS], rows)
        + f'\n\n{seeds[0]["num_videos"]:.0f} videos, {seeds[0]["num_sentences"]:.0f} sentences. '
        f'Training in 2 processes took {used} s of CPU time in all, startup and validation '
        f'included: by the clock between half of that and that, on cores that nobody else '
        f'uses ({wall} s on these, which other programs used too).'
    )


def quickstart() -> dict:
    """Seconds that each step of tools/quickstart.sh takes after installation."""
    folder = WORK / 'quickstart'
    shutil.rmtree(ROOT / folder, ignore_errors=True)
    output = run('bash', 'tools/quickstart.sh', '--out', folder)
    steps = re.findall(r'^\[ *(\d+) s\] (.*)$', output, flags=re.MULTILINE)
    durations = {
        text.split()[1].rstrip(':'): int(end) - int(begin)
        for (begin, text), (end, _) in pairwise(steps)
    }
    metrics = json.loads((ROOT / folder / 'work_dirs/mmn_shapes/results.json').read_text())
    return dict(seconds=durations, total_seconds=int(steps[-1][0]), metrics=metrics)


def render_quickstart(result: dict) -> str:
    """Seconds per step."""
    total = ['all, after installation', result['total_seconds']]
    return table(['step', 'seconds'], [*result['seconds'].items(), total])


def agreement_of(files: str, /) -> dict:
    """The rows of verify_reference.py, dense and sparse, for these golden files."""
    arguments = ('verify_reference', *sorted(shared_folder('golden').glob(files)), '--conv-mode')
    return dict(modes={mode: of_tool(*arguments, mode) for mode in ('dense', 'sparse')})


agreement = partial(agreement_of, '[!h]*.npz')
agreement_tubes = partial(agreement_of, 'hcstvg*.npz')


def render_agreement(result: dict) -> str:
    """Largest relative difference of each quantity over all files."""
    worst = {}
    for mode, files in result['modes'].items():
        for row in (row for rows in files.values() for row in rows):
            name = re.sub(r' \(\d+\)$', '', row['quantity']).removeprefix('eval/')
            bound = f'{row["bound"]:.0e}' if row['bound'] else 'equal'
            found = worst.setdefault(name, dict(bound=bound, files=0, dense=0.0, sparse=0.0))
            found[mode] = max(found[mode], row['max_rel'])
            found['files'] += mode == 'dense'
    rows = []
    for name, found in worst.items():
        figures = [f'{found[mode]:.1e}' if found[mode] else '0' for mode in ('dense', 'sparse')]
        rows.append([name, found['files'], *figures, found['bound']])
    header = ['quantity', 'files', 'largest relative difference', 'with sparse convolutions']
    return table([*header, 'bound'], rows)


render_agreement_tubes = render_agreement


# Batches are small since two cores take half a minute for a step of one video of TACoS.
PUBLISHED = {
    'TACoS, training': 'mmn_tacos.py --task train --batch-size 1',
    'ActivityNet Captions, training': 'mmn_activitynet.py --task train --batch-size 2',
    'TACoS, inference': 'mmn_tacos.py --task test --batch-size 1',
    'ActivityNet Captions, inference': 'mmn_activitynet.py --task test --batch-size 1',
}
CHARADES = {  # measured by themselves, later
    'Charades-STA, training': 'mmn_charades.py --task train --batch-size 2',
    'Charades-STA, inference': 'mmn_charades.py --task test --batch-size 1',
}


def benchmark_of(benchmarks: dict[str, str], repeats: int) -> dict:
    """Training and inference of every variant, in turns."""
    runs = {}
    for name, options in benchmarks.items():
        options += f' --conv-mode dense,sparse --dtype fp32,bf16 --repeats {repeats}'
        figures = of_tool('benchmark', *options.split())
        runs[name] = dict(command=f'benchmark.py {options}', **figures)
    return dict(runs=runs, load=os.getloadavg()[0])


benchmark = partial(benchmark_of, PUBLISHED)
benchmark_charades = partial(benchmark_of, CHARADES)


def render_benchmark(result: dict) -> str:
    """A row per variant."""
    rows = []
    for name, run_ in result['runs'].items():
        machine, first = run_['machine'], run_['rows'][0]
        bare = {row['dtype']: row['ratio'] for row in machine if row['name'].startswith('conv')}
        for row in run_['rows']:
            videos = f'{row["videos"]} video{"s" * (row["videos"] > 1)}'
            time = f'{row["seconds"]:.2f} s ± {100 * row["spread"]:.0f} %'
            memory = f'{row["peak_mb"]:,.0f} MB ({row["peak_mb"] / first["peak_mb"]:.2f}x)'
            ratios = f'{row["ratio"]:.2f}x', f'{bare[row["dtype"]]:.2f}x'
            rows.append([f'{name}, {videos}', row['name'], time, *ratios, memory])
    commands = '\n'.join(f'- {name}: `{run_["command"]}`' for name, run_ in result['runs'].items())
    header = ['config', 'moment encoder', 'time', 'against dense fp32']
    header += ['bare convolution, against fp32', 'peak memory']
    load = f'\n\nLoad of the machine at the end: {result["load"]:.1f}.' if 'load' in result else ''
    return f'{commands}\n\n{table(header, rows)}{load}'


render_benchmark_charades = render_benchmark


def videos() -> dict:
    """What `mmn extract` says of damaged videos, all in one run, with the grid extractor."""
    import h5py

    sys.path.insert(0, str(ROOT / 'tests'))  # the videos are those of the tests
    from helpers.bad_videos import VIDEOS, write_videos

    with tempfile.TemporaryDirectory() as folder:
        out, report = Path(folder, 'bad.h5'), Path(folder, 'report.json')
        source = write_videos(Path(folder, 'bad'))
        command = [sys.executable, '-m', 'mmn', 'extract', source, '--out', out, '--json', report]
        subprocess.run([*command, '--workers', '1'], cwd=ROOT, check=False)  # 1: some failed
        found, rows = json.loads(report.read_text()), []
        with h5py.File(out) as file:
            for what, (name, _) in VIDEOS.items():
                video = Path(name).stem
                message = found['failures'].get(video, '').replace(f'{source}/', '')
                count = len(file[video]) if video in file else 0
                notes = found['notes'].get(video, {})
                rows.append(dict(what=what, message=message, notes=notes, rows=count))
    return dict(outcomes=rows)


def render_videos(result: dict) -> str:
    """A row per damaged video."""
    rows = []
    for row in result['outcomes']:
        notes = '; '.join(f'{kind}: {details}' for kind, details in row['notes'].items())
        outcome = f'{row["rows"]} rows' if row['rows'] else 'named, the rest goes on'
        rows.append([row['what'], outcome, row['message'] or notes])
    return table(['what is wrong (8 s of video, rows of 0.75 s)', 'features', 'said'], rows)


# Videos of a batch that two cores have the time for.
MEASURED = dict(mmn_tacos=(1, 2), mmn_charades=(4, 8), mmn_activitynet=(1, 2))


def memory() -> dict:
    """What memory_estimate.py says of the published batches, and of small ones that are run."""
    rows = []
    for config, sizes in MEASURED.items():
        rows.append(of_tool('memory_estimate', f'{config}.py', '--measure', *sizes))
        rows.append(of_tool('memory_estimate', f'{config}.py', '--dtype', 'bf16'))
    return dict(rows=rows)


def render_memory(result: dict) -> str:
    """A row per config and precision, and one per step that was run."""
    estimates, measured = [], []
    for row in result['rows']:
        parts, about = row['parts_mb'], [row['config'], row['dtype']]
        state = parts['weights'] + parts['optimizer state']
        figures = [row['batch_size'], f'{state:,.0f} MB', f'{row["total_mb"]:,.0f} MB']
        estimates.append([*about, *figures, *row['largest_batch'].values()])
        for step in row['measured']:
            ratio = step['estimated_mb'] / step['measured_mb'] - 1
            figures = [f'{step[name]:,.0f} MB' for name in ('measured_mb', 'estimated_mb')]
            measured.append([*about, step['batch_size'], *figures, f'{100 * ratio:+.1f} %'])
    cards = [f'at most on {card} GB' for card in result['rows'][0]['largest_batch']]
    header = ['config', 'precision', 'videos per GPU']
    estimated = table([*header, 'weights and optimizer state', 'a step needs', *cards], estimates)
    header += ['measured on the CPU', 'estimated', 'difference']
    return f'{estimated}\n\n{table(header, measured)}'
