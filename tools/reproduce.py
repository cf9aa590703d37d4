"""Measure again what README.md and docs/ report: ``python tools/reproduce.py NAME``.

Writes ``docs/results/NAME.json`` (command, commit, seeds, machine, every value) and renders its
table in the page that has its marker; exit code 1 where the result lists what ``failed``. Run from
the checkout's root, on the Shapes corpus of ``tools/quickstart.sh``.
"""

import argparse
import datetime
import inspect
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # however this file is run
sys.path.insert(1, f'{sys.path[0]}/analysis_tools')

from reproduction.wheels import use_wheels, wheels_of

if (folder := wheels_of(sys.argv[1:])) is not None:
    use_wheels(folder)  # all that follows may need them

from benchmark import cpu_name
from reproduction import (
    captions,
    captions_parts,
    encoder_counts,
    experiments,
    extraction,
    gpu,
    inference,
    labels,
    library,
    library_adding,
    library_faults,
    library_large,
    library_presence,
    library_speed,
    negatives_library,
    negatives_limits,
    pieces,
    removed,
    shapes_windows,
    tower_speed,
    towers,
    training,
    weak,
    zero_shot,
)
from reproduction.running import ROOT, run
from reproduction.tables import source

from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file, write_json

RESULTS = ROOT / 'docs' / 'results'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
CODE = ('mmn_plugin', 'configs', 'tools', 'requirements', 'tests')
# How each is measured, with what can be chosen as its arguments, and how its table is made.
EXPERIMENTS = dict(
    absence=(inference.absence, inference.render_absence),
    agreement=(partial(experiments.agreement, '[!h]*.npz'), experiments.render_agreement),
    agreement_tubes=(partial(experiments.agreement, 'hcstvg*.npz'), experiments.render_agreement),
    benchmark=(
        partial(experiments.benchmark, experiments.BENCHMARKS),
        experiments.render_benchmark,
    ),
    benchmark_charades=(
        partial(experiments.benchmark, experiments.CHARADES),
        experiments.render_benchmark,
    ),
    captions=(captions.captions, captions.render_captions),
    captions_library=(
        negatives_library.captions_library,
        negatives_library.render_captions_library,
    ),
    captions_parts=(captions_parts.captions_parts, captions_parts.render_captions_parts),
    encoder_counts=(encoder_counts.encoder_counts, encoder_counts.render_encoder_counts),
    extraction=(extraction.extraction, extraction.render_extraction),
    gpu=(gpu.gpu, gpu.render_gpu),
    inference_cost=(inference.inference_cost, inference.render_inference_cost),
    labels=(labels.labels, labels.render_labels),
    library=(library.library, library.render_library),
    library_adding=(library_adding.library_adding, library_adding.render_library_adding),
    library_faults=(library_faults.library_faults, library_faults.render_library_faults),
    library_large=(library_large.library_large, library_large.render_library_large),
    library_presence=(
        library_presence.library_presence,
        library_presence.render_library_presence,
    ),
    library_speed=(library_speed.library_speed, library_speed.render_library_speed),
    loader=(training.loader, training.render_loader),
    memory=(experiments.memory, experiments.render_memory),
    long_video=(inference.long_video, inference.render_long_video),
    negatives_limits=(
        negatives_limits.negatives_limits,
        negatives_limits.render_negatives_limits,
    ),
    negatives_library=(
        negatives_library.negatives_library,
        negatives_library.render_negatives_library,
    ),
    optimizer=(training.optimizer, training.render_optimizer),
    pieces=(pieces.pieces, pieces.render_pieces),
    quickstart=(experiments.quickstart, experiments.render_quickstart),
    shapes=(experiments.shapes, experiments.render_shapes),
    shapes_towers=(towers.shapes_towers, towers.render_shapes_towers),
    shapes_windows=(shapes_windows.shapes_windows, shapes_windows.render_shapes_windows),
    towers=(tower_speed.towers, tower_speed.render_towers),
    tubes=(experiments.tubes, experiments.render_tubes),
    videos=(experiments.videos, experiments.render_videos),
    weak=(weak.weak, weak.render_weak),
    zero_shot_speed=(zero_shot.zero_shot_speed, zero_shot.render_zero_shot_speed),
)
# How tables are made, those of what was removed too, which only their commit can measure.
RENDERED = {name: render for name, (_, render) in EXPERIMENTS.items()} | dict(
    negatives=removed.render_negatives, negatives_drift=removed.render_negatives_drift
)


def options_of(name: str) -> list[str]:
    """What can be chosen: ``seeds``, ``repeats``, ``parts`` or nothing."""
    return list(inspect.signature(EXPERIMENTS[name][0]).parameters)


def machine() -> dict:
    """What the figures were measured on."""
    packages = ('torch', 'mmengine', 'mmaction2', 'transformers', 'numpy')
    return dict(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        system=platform.system(),
        python=platform.python_version(),
        **{name: version(name) for name in packages},
    )


def command_of(name: str, how: dict) -> str:
    """The command line that measures again."""
    words = ['python', 'tools/reproduce.py', name]
    for option, value in how.items():
        if value is None:
            continue
        words += [f'--{option}', *(value if isinstance(value, list) else [value])]
    return ' '.join(map(str, words))


def measure(name: str, args: argparse.Namespace) -> Iterator[dict]:
    """Run one experiment and describe how it was run; several times where it comes in parts."""
    commit = 'unknown'
    if (ROOT / '.git').exists():
        changed = run('git', 'status', '--porcelain', '--', *CODE).strip()
        commit = run('git', 'rev-parse', 'HEAD').strip()
        commit += ' with uncommitted changes' if changed else ''
    how = {option: getattr(args, option) for option in options_of(name)}
    about = dict(
        name=name,
        command=command_of(name, how),
        commit=commit,
        date=datetime.date.today().isoformat(),
        machine=machine(),
        **how,
    )
    found = EXPERIMENTS[name][0](**how)
    yield from (about | part for part in ([found] if isinstance(found, dict) else found))


def update_page(page: Path, results: Path = RESULTS) -> str:
    """A page with every ``<!-- result: NAME -->`` block rendered from its JSON."""

    def render(match):
        path = results / f'{match[1]}.json'
        if not path.is_file():  # not measured yet
            return match[0]
        result = json.loads(path.read_text())
        body = f'{RENDERED[match[1]](result)}\n\n{source(result)}'
        body = body.replace('](docs/results/', f']({os.path.relpath(RESULTS, page.parent)}/')
        return f'<!-- result: {match[1]} -->\n{body}\n<!-- end -->'

    return re.sub(
        r'<!-- result: (\w+) -->.*?<!-- end -->', render, page.read_text(), flags=re.DOTALL
    )


def main() -> None:
    """Measure what was asked for, and render the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'names',
        nargs='*',
        choices=[*EXPERIMENTS, []],
        metavar='NAME',
        help=f'one or more of {", ".join(EXPERIMENTS)}; none: only render the pages',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--repeats', type=int, default=3, help='rounds of the benchmark (default: 3)'
    )
    text = f'of the experiment gpu: {", ".join(gpu.PARTS)} (default: all)'
    parser.add_argument('--parts', nargs='+', choices=gpu.PARTS, metavar='PART', help=text)
    text = 'install all but PyTorch from this folder of wheels, for this run alone'
    parser.add_argument('--wheels', metavar='DIR', help=text)
    args, failed = parser.parse_args(), []
    with plain_errors():
        for path in [*PAGES, *(RESULTS / f'{name}.json' for name in args.names)]:
            writable_file(path)
        for name in args.names:
            for result in measure(name, args):
                write_json(result, RESULTS / f'{name}.json')
            failed += result.get('failed', [])
    for page in PAGES:
        page.write_text(update_page(page))
    if failed:
        sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
