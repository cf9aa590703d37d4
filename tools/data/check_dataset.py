"""Check the datasets of a config before training: annotations, features, sentences, splits.

Prints counts and findings with their first offenders; exit code 1 where training would be wrong.

    python tools/data/check_dataset.py configs/mmn_tacos.py
    python tools/data/check_dataset.py configs/mmn_tacos.py --split train --quick
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mmengine.config import DictAction
from rich.console import Console
from rich.progress import track

import mmn_plugin  # noqa: F401
from mmn_plugin.config import load_config
from mmn_plugin.datasets import check_config
from mmn_plugin.errors import plain_errors


def parse_args(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='override settings of the config, key=value',
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Check and print; returns the exit code."""
    args = parse_args(argv)
    progress = Console(stderr=True)
    with plain_errors():
        report = check_config(
            load_config(args.config, args.cfg_options),
            args.split,
            args.quick,
            args.examples,
            lambda items, text: track(items, text, console=progress, transient=True),
        )
    report.render(Console(width=None if sys.stdout.isatty() else 160))
    return 0 if report.passed else 1


if __name__ == '__main__':
    sys.exit(main())
