"""Measure again what README.md and docs/ report: ``python tools/reproduce.py NAME``.

Writes ``docs/results/NAME.json`` (command, commit, seeds, machine, every value) and renders its
table in the page that has its marker; exit code 1 where the result lists what ``failed``. Run from
the checkout's root, on the Shapes corpus of ``tools/quickstart.sh``.
"""

import argparse
import datetime
import importlib
import inspect
import json
import os
import pkgutil
import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # however this file is run
sys.path.insert(1, f'{sys.path[0]}/analysis_tools')

from reproduction.wheels import use_wheels, wheels_of

if (folder := wheels_of(sys.argv[1:])) is not None:
    use_wheels(folder)  # all that follows may need them

import reproduction
from benchmark import cpu_name
from reproduction.gpu import PARTS
from reproduction.running import ROOT, run
from reproduction.tables import source

from mmn_plugin.errors import plain_errors
from mmn_plugin.files import writable_file, write_json

RESULTS = ROOT / 'docs' / 'results'
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
CODE = ('mmn_plugin', 'configs', 'tools', 'requirements', 'tests')


def experiments() -> Iterator[tuple[str, Callable | None, Callable]]:
    """Of each experiment its name, what measures it, and what makes its table.

    These are the functions NAME and ``render_NAME`` of a module of reproduction/; the arguments of
    the former are what can be chosen. Of what was removed only the latter is there: its commit can
    measure it again.
    """
    for module in pkgutil.iter_modules(reproduction.__path__, 'reproduction.'):
        functions = vars(importlib.import_module(module.name))
        for name in functions:
            if name.startswith('render_'):
                measure = name.removeprefix('render_')
                yield measure, functions.get(measure), functions[name]


RENDERED = {name: render for name, _, render in experiments()}
EXPERIMENTS = {name: measure for name, measure, _ in experiments() if measure}


def options_of(name: str) -> list[str]:
    """What can be chosen: ``seeds``, ``repeats``, ``parts`` or nothing."""
    return list(inspect.signature(EXPERIMENTS[name]).parameters)


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
    found = EXPERIMENTS[name](**how)
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
        choices=[*sorted(EXPERIMENTS), []],
        metavar='NAME',
        help=f'one or more of {", ".join(sorted(EXPERIMENTS))}; none: only render the pages',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument(
        '--repeats', type=int, default=3, help='rounds of the benchmark (default: 3)'
    )
    text = f'of the experiment gpu: {", ".join(PARTS)} (default: all)'
    parser.add_argument('--parts', nargs='+', choices=PARTS, metavar='PART', help=text)
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
