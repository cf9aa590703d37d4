"""Measure again what README.md and docs/ report: ``python tools/reproduce.py NAME``.

Writes ``docs/results/NAME.json`` (command, commit, seeds, machine, every value) and renders its
table in the page that has its marker. Run from the checkout's root, on the Shapes corpus of
``tools/quickstart.sh``.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # however this file is run

from reproduction import absent, experiments, inference, long_videos, performance, speed, videos
from reproduction import tubes as of_tubes
from reproduction.faults import faults
from reproduction.renderers import RENDERERS as OF_EXPERIMENTS
from reproduction.renderers import source
from reproduction.running import ROOT, run
from reproduction.weak import render_weak, weak

RESULTS = ROOT / 'docs' / 'results'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))]
CODE = ('mmn_plugin', 'configs', 'tools', 'requirements', 'tests')
EXPERIMENTS = dict(
    absence=absent.absence,
    agreement=experiments.agreement,
    agreement_tubes=of_tubes.agreement_tubes,
    benchmark=performance.benchmark,
    data_cost=performance.data_cost,
    dataset_cost=experiments.dataset_cost,
    evaluation_cost=performance.evaluation_cost,
    faults=faults,
    inference_cost=inference.inference_cost,
    layouts=performance.layouts,
    long_video=long_videos.long_video,
    memory=performance.memory,
    memory_bf16=performance.memory_bf16,
    negatives=experiments.negatives,
    negatives_cost=experiments.negatives_cost,
    precision=speed.precision,
    quickstart=experiments.quickstart,
    shapes=experiments.shapes,
    shapes_words=experiments.shapes_words,
    tubes=of_tubes.tubes,
    videos=videos.videos,
    weak=weak,
)
# What each option is for; the other experiments take none.
OPTIONS = dict(
    seeds=(
        'absence',
        'long_video',
        'negatives',
        'precision',
        'shapes',
        'shapes_words',
        'tubes',
        'videos',
        'weak',
    ),
    repeats=('benchmark', 'data_cost', 'evaluation_cost', 'faults', 'layouts'),
)
RENDERERS = dict(
    absence=absent.render_absence,
    benchmark=performance.render_benchmark,
    data_cost=performance.render_data_cost,
    evaluation_cost=performance.render_evaluation_cost,
    inference_cost=inference.render_inference_cost,
    layouts=performance.render_layouts,
    long_video=long_videos.render_long_video,
    memory=performance.render_memory,
    memory_bf16=performance.render_memory_bf16,
    precision=speed.render_precision,
    tubes=of_tubes.render_tubes,
    videos=videos.render_videos,
    weak=render_weak,
    **OF_EXPERIMENTS,
)


def machine() -> dict:
    """What the figures were measured on."""
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    packages = ('torch', 'mmengine', 'mmaction2', 'transformers', 'numpy')
    return dict(
        cpu=cpu[1] if cpu else platform.processor(),
        cores=len(os.sched_getaffinity(0)),
        system=platform.system(),
        python=platform.python_version(),
        **{name: version(name) for name in packages},
    )


def command_of(name: str, how: dict) -> str:
    """The command line that measures again."""
    words = ['python', 'tools/reproduce.py', name]
    for option, value in how.items():
        words += [f'--{option}', *(value if isinstance(value, list) else [value])]
    return ' '.join(map(str, words))


def measure(name: str, args: argparse.Namespace) -> dict:
    """Run one experiment and describe how it was run."""
    git = ('git', '-C', ROOT)
    changed = run(*git, 'status', '--porcelain', '--', *CODE, capture=True).strip()
    commit = run(*git, 'rev-parse', 'HEAD', capture=True).strip()
    how = {option: getattr(args, option) for option, names in OPTIONS.items() if name in names}
    return dict(
        name=name,
        command=command_of(name, how),
        commit=commit + (' with uncommitted changes' if changed else ''),
        date=datetime.date.today().isoformat(),
        machine=machine(),
        **how,
        **EXPERIMENTS[name](args),
    )


def update_page(page: Path, results: Path = RESULTS) -> str:
    """A page with every ``<!-- result: NAME -->`` block rendered from its JSON."""

    def render(match):
        path = results / f'{match[1]}.json'
        if not path.is_file():  # not measured yet
            return match[0]
        result = json.loads(path.read_text())
        body = f'{RENDERERS[match[1]](result)}\n\n{source(result)}'
        body = body.replace('](docs/results/', f']({os.path.relpath(RESULTS, page.parent)}/')
        return f'<!-- result: {match[1]} -->\n{body}\n<!-- end -->'

    return re.sub(
        r'<!-- result: (\w+) -->.*?<!-- end -->', render, page.read_text(), flags=re.DOTALL
    )


def require_writable(parser: argparse.ArgumentParser, paths: list[Path]) -> None:
    """End with a message if a file cannot be written, before anything is measured."""
    from mmn_plugin.files import OutputError, writable_file

    try:
        for path in paths:
            writable_file(path)
    except OutputError as error:
        parser.error(str(error))


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
        '--repeats', type=int, default=3, help='rounds of faults and of benchmarks (default: 3)'
    )
    args = parser.parse_args()
    if args.names:
        require_writable(parser, [*PAGES, *(RESULTS / f'{name}.json' for name in args.names)])
    for name in args.names:
        result = measure(name, args)
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f'{name}.json').write_text(json.dumps(result, indent=1) + '\n')
    for page in PAGES:
        page.write_text(update_page(page))


if __name__ == '__main__':
    main()
