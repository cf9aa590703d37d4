"""Check the datasets of a config before training: annotations, features, sentences, splits.

Prints counts and findings with their first offenders; exit code 1 where training would be wrong.

    mmn check configs/mmn_tacos.py
    mmn check configs/mmn_tacos.py --split train --quick
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.progress import track

from mmn_plugin.cli.arguments import Parser, add_config_options
from mmn_plugin.config import load_config
from mmn_plugin.datasets import check_config


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('check', __doc__)
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument(
        '--split',
        nargs='+',
        choices=('train', 'val', 'test'),
        help='splits to check (default: all that the config has)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='look at the shapes of features alone, not at every value',
    )
    parser.add_argument(
        '--examples',
        type=int,
        default=3,
        help='offenders named for each kind of finding (default: 3)',
    )
    add_config_options(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace, answer: Callable) -> int:
    """Check and print; returns the exit code."""
    progress = Console(stderr=True)
    report = check_config(
        load_config(args.config, args.cfg_options),
        args.split,
        args.quick,
        args.examples,
        lambda items, text: track(items, text, console=progress, transient=True),
    )
    report.render(Console(width=None if sys.stdout.isatty() else 160))
    findings = [asdict(finding) for finding in report.findings]
    answer(dict(passed=report.passed, counts=report.counts, findings=findings))
    return 0 if report.passed else 1
