"""Results as tables of README.md and docs/; every function takes what a JSON holds."""

import re
import statistics
from collections.abc import Sequence

CHANCE = 'chance (random ranking)'
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'R5@0.5', 'R5@0.7', 'mIoU')


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    mean = statistics.fmean(values)
    return f'{mean:.1f} ± {statistics.stdev(values):.1f}' if len(values) > 1 else f'{mean:.1f}'


def spreads(per_seed: list[dict], names: Sequence[str]) -> list[str]:
    """The same of each of these figures of a row, in which every seed has its own."""
    return [spread([seed[name] for seed in per_seed]) for name in names]


def title(metric: str) -> str:
    """A metric's name as tables have it."""
    metric = re.sub(r'R(\d)@([\d.]+)', r'R@\1, IoU=\2', metric)
    unseen = metric.removeprefix('unseen/')
    return metric if unseen == metric else f'{unseen}, unseen combinations'


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def source(result: dict) -> str:
    """The line under a table that says where its figures come from."""
    seeds = ''
    if 'per_seed' in result:
        several = len(result['seeds']) > 1
        seeds = f', seed{"s" * several} {", ".join(map(str, result["seeds"]))}'
    if 'rounds' in result:
        seeds = f', {len(result["rounds"])} round{"s" * (len(result["rounds"]) > 1)}'
    machine = result['machine']
    return (
        f'`python tools/reproduce.py {result["name"]}`{seeds}; {result["date"]}, commit '
        f'{result["commit"][:7]}; {machine["cores"]} cores of '
        f'{machine["cpu"]}, no GPU, torch {machine["torch"]}; values in '
        f'[docs/results/{result["name"]}.json](docs/results/{result["name"]}.json).'
    )


def render_shapes(result: dict) -> str:
    """Figures of all, unseen and random ranking."""
    prefixes = {'all sentences': '', 'unseen combinations': 'unseen/', CHANCE: 'chance/'}
    rows = [
        [label, *spreads(result['per_seed'], [prefix + name for name in METRICS])]
        for label, prefix in prefixes.items()
    ]
    return table(['test split, %', *map(title, METRICS)], rows)


def render_negatives(result: dict) -> str:
    """Figures by source of the negatives."""
    names = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU', 'unseen/R1@0.5')
    rows = [[label, *spreads(seeds, names)] for label, seeds in result['per_seed'].items()]
    return table(['negatives from', *map(title, names)], rows)


def render_quickstart(result: dict) -> str:
    """Seconds per step."""
    rows = [[step, str(seconds)] for step, seconds in result['seconds'].items()]
    return table(
        ['step', 'seconds'], [*rows, ['all, after installation', str(result['total_seconds'])]]
    )


def render_dataset_cost(result: dict) -> str:
    """Seconds and megabytes."""
    figures = result['figures']
    return table(
        ['ActivityNet Captions, training set', 'measured'],
        [
            ['videos', f'{figures["videos"]:,}'],
            ['time to build', f'{figures["seconds"]:.2f} s'],
            ['growth of peak memory', f'{figures["peak_growth_mb"]:.0f} MB'],
            ['kept, and sent to a spawned worker', f'{figures["kept_mb"]:.1f} MB'],
        ],
    )


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
    return table(
        ['quantity', 'files', 'largest relative difference', 'with sparse convolutions', 'bound'],
        [
            [
                name,
                str(found['files']),
                *(f'{found[mode]:.1e}' if found[mode] else '0' for mode in ('dense', 'sparse')),
                found['bound'],
            ]
            for name, found in worst.items()
        ],
    )


def render_faults(result: dict) -> str:
    """Faults, how often they were tried, and what they cost."""
    rows = []
    for fault in result['faults']:
        tried, survived = fault['tried'], fault['survived']
        lost = fault['lost']
        if not tried:
            lost = 'not tried: this machine cannot'
        elif survived < tried:
            lost = f'**not as it must in {tried - survived} of {tried}**; else {lost}'
        rows.append([fault['done'], str(tried), lost])
    return table(['what was done', 'times', 'what was lost'], rows)
