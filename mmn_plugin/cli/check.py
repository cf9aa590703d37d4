"""The command ``check`` of `mmn_plugin.cli.main`."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Console
from rich.progress import track

from mmn_plugin.cli.main import Parser, add_config_options, add_model_root, count
from mmn_plugin.config import load_config
from mmn_plugin.datasets import check_config
from mmn_plugin.files import OutputFolder
from mmn_plugin.hub import with_model_root
from mmn_plugin.visualization.label_page import label_files, split_names, write_labels


def parse_check(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('check', run_check.__doc__)
    add, splits = parser.add_argument, ('train', 'val', 'test')
    add('config', help='path of a config, or the name of one of mmn_plugin')
    add('--split', nargs='+', choices=splits, help='splits to check (default: all there are)')
    add('--quick', action='store_true', help='look at the shapes of features, not at every value')
    add('--examples', type=int, default=3, help='offenders named for each finding (default: 3)')
    text = 'write a page of pictures of labels to look at, and their sentences as subsets, here'
    add('--labels', metavar='DIR', type=OutputFolder, help=text)
    text = 'pictures of each kind and split, with --labels (default: 12)'
    add('--pictures', type=count, default=12, metavar='N', help=text)
    add_model_root(parser)
    add_config_options(parser)
    return parser.parse_args(argv)


def run_check(args: argparse.Namespace, answer: Callable) -> int:
    """Check the datasets of a config before training: annotations, features, sentences, splits.

    Prints counts and findings with their first offenders; exit code 1 where training would be
    wrong. Labels that a person should look at are among them (docs/data.md).

        mmn check configs/mmn_tacos.py
        mmn check configs/mmn_tacos.py --split train --quick
        mmn check configs/mmn_tacos.py --labels labels/               # with labels/labels.html
    """
    config = with_model_root(load_config(args.config, args.cfg_options), args.model_root)
    if args.labels:
        args.labels.claim(dict.fromkeys(label_files(split_names(config, args.split))))
    progress = Console(stderr=True)
    report = check_config(
        config,
        args.split,
        args.quick,
        args.examples,
        lambda items, text: track(items, text, console=progress, transient=True),
    )
    report.render(Console(width=None if sys.stdout.isatty() else 160))
    if args.labels and report.labels:
        write_labels(args.labels, report.labels, report.compared_by, args.pictures)
        print(f'Labels to look at are in {args.labels.path}/.')
    elif args.labels:
        print('No windows of sentences were read: there are no labels to look at.')
    findings = [asdict(finding) for finding in report.findings]
    labels = {split: found.figures() for split, found in report.labels.items()}
    answer(
        dict(
            passed=report.passed,
            counts=report.counts,
            findings=findings,
            labels=labels,
            labels_compared_by=report.compared_by,
        )
    )
    return 0 if report.passed else 1
