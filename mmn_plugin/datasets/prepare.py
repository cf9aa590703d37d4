"""Convert published annotations, and check what was written."""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.progress import track

from mmn_plugin.errors import MissingFileError
from mmn_plugin.files import writable_folder

from .checks import check_config
from .feature_store import describe_folder


def prepare_dataset(
    args: argparse.Namespace,
    annotations: Mapping[str, Path],
    feature_name: str,
    feature_size: int,
    expected: Mapping[str, tuple[int, int]],
    feature_key: str | None = None,
) -> int:
    """Gather annotations and features of a dataset in one folder, verify them and print the report.

    Running it again changes nothing that is in place already.

    Args:
        args (argparse.Namespace): Of a `prepare_parser`.
        annotations (Mapping[str, Path]): Split -> annotation file, which becomes
            ``<split>.json``.
        feature_name (str): Name under which the config looks for the features.
        feature_size (int): D.
        expected (Mapping[str, tuple[int, int]]): Split -> usable videos and sentences as published.
        feature_key (str, optional): Name of the features within a video's entry. Defaults to None.

    Returns:
        int: The exit code.
    """
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / feature_name
    if args.features is not None:
        _place(args.features, target, args.copy)
    cfg = Config(dict(model=dict(backbone=dict(in_channels=feature_size))))
    for split, source in annotations.items():
        _place(source, args.out / f'{split}.json', copy=True)
        cfg[f'{split}_dataloader'] = dict(
            dataset=dict(
                type='TemporalGroundingDataset',
                ann_file=str(args.out / f'{split}.json'),
                data_prefix={} if args.no_features else dict(features=str(target)),
                feature_key=feature_key,
            )
        )
    bar = partial(track, console=Console(stderr=True), transient=True)
    report = check_config(cfg, quick=args.quick, track=bar, features=not args.no_features)
    for split, published in expected.items():
        found = tuple(report.counts[split][name] for name in ('videos', 'sentences'))
        if found != published:
            counts = '{:,} videos and {:,} sentences; published are {:,} and {:,}'
            message = f'{annotations[split]}: {counts.format(*found, *published)}'
            report.add('error', split, 'not the published annotations', message)
    console = Console(width=None if sys.stdout.isatty() else 160)
    report.render(console)
    if report.passed:
        console.print(f'{args.out} is ready')
    return 0 if report.passed else 1


def _place(source: Path, target: Path, copy: bool) -> None:
    """Copy or link a file or folder, unless it is there."""
    if not source.exists():
        raise MissingFileError(f'{source} does not exist. {describe_folder(source)}')
    if target.exists() and os.path.samefile(source, target):
        return
    if target.is_symlink() or target.is_file():
        target.unlink()
    if not copy:
        target.symlink_to(source.resolve())
    elif source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def prepare_parser(description: str, out: str) -> argparse.ArgumentParser:
    """Options of every script that prepares a dataset, by default in the folder ``out``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--features', type=Path, help='downloaded feature file (default: it lies in OUT already)'
    )
    text = 'prepare the annotations alone, for features of your own'
    parser.add_argument('--no-features', action='store_true', help=text)
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
