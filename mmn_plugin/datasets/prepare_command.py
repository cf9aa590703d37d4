"""The command line that the scripts in ``tools/data/<dataset>/`` share."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track

from mmn_plugin.files import writable_folder

from .checks import CheckReport


def prepare_parser(description: str, out: str) -> argparse.ArgumentParser:
    """Options of every script that prepares a dataset.

    Args:
        description (str): The script's docstring.
        out (str): Default folder of the dataset.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--features', type=Path, help='downloaded feature file (default: it lies in OUT already)'
    )
    parser.add_argument(
        '--out',
        type=writable_folder,
        default=Path(out),
        help=f'folder of the dataset, data_root of the config (default: {out})',
    )
    parser.add_argument(
        '--copy', action='store_true', help='copy the features instead of linking to them'
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='look at the shapes of features alone, not at every value',
    )
    return parser


def show_progress(items, text: str):
    """Progress bar on the standard error stream."""
    return track(items, text, console=Console(stderr=True), transient=True)


def finish(report: CheckReport, out: Path) -> int:
    """Print a report; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    report.render(console)
    if report.passed:
        console.print(f'{out} is ready')
    return 0 if report.passed else 1
