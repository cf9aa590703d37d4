"""Results as tables of README.md and docs/."""

import re
import statistics
from collections.abc import Sequence

CHANCE = 'chance (random ranking)'
METRICS = ('R1@0.3', 'R1@0.5', 'R1@0.7', 'R5@0.5', 'R5@0.7', 'mIoU')


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several values."""
    mean = statistics.fmean(values)
    return f'{mean:.1f} ± {statistics.stdev(values):.1f}' if len(values) > 1 else f'{mean:.1f}'


def spreads(per_seed: list[dict], names: Sequence[str], factor: float = 1) -> list[str]:
    """The same of each of these figures, times a factor; '' where seeds have no such figure."""
    return [
        spread([factor * seed[name] for seed in per_seed]) if name in per_seed[0] else ''
        for name in names
    ]


def title(metric: str) -> str:
    """A metric's name as tables have it."""
    metric = re.sub(r'R(\d)@([\d.]+)', r'R@\1, IoU=\2', metric)
    unseen = metric.removeprefix('unseen/')
    return metric if unseen == metric else f'{unseen}, unseen combinations'


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def source(result: dict) -> str:
    """The line under a table that says where its figures come from."""
    numbers, machine = result.get('seeds', []), result['machine']
    seeds = f', seed{"s" * (len(numbers) > 1)} {", ".join(map(str, numbers))}' if numbers else ''
    return (
        f'`python tools/reproduce.py {result["name"]}`{seeds}; {result["date"]}, commit '
        f'{result["commit"][:7]}; {machine["cores"]} cores of '
        f'{machine["cpu"]}, {result.get("gpu", "no GPU")}, torch {machine["torch"]}; values in '
        f'[docs/results/{result["name"]}.json](docs/results/{result["name"]}.json).'
    )
