"""Measure what it costs to build a dataset: seconds, and growth of the process's memory.

    python tools/analysis_tools/dataset_cost.py data/activitynet/train.json \\
        --features data/activitynet/sub_activitynet_v1-3.c3d.hdf5 --feature-key c3d_features

Without --features, a small file of random features stands in. A tube file (.h5) is measured with
its own features. Exit code 1 over a bound.
"""

import argparse
import json
import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
from pathlib import Path

import h5py
from mmengine.dataset import BaseDataset
from rich.console import Console
from rich.table import Table

import mmn_plugin  # noqa: F401
from mmn_plugin.datasets import (
    TemporalGroundingDataset,
    TubeFile,
    TubeGroundingDataset,
    write_random_features,
)
from mmn_plugin.errors import InputError, MissingFileError, plain_errors
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.structures.annotations import read_annotations


def parse_args(argv=None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('ann_file', type=Path, help='annotation file, or tube file (.h5)')
    parser.add_argument('--features', help='feature file or folder (default: a stand-in)')
    parser.add_argument('--feature-key', help="name of the features within a video's entry")
    parser.add_argument('--max-seconds', type=float, default=5, help='bound (default: 5)')
    parser.add_argument('--max-mb', type=float, default=300, help='bound (default: 300)')
    parser.add_argument('--json', type=writable_file, help='also write the figures to this file')
    return parser.parse_args(argv)


def peak_mb() -> float:
    """Largest memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == 'darwin' else 2**10)


def write_stand_in(path: str, ann_file: Path, feature_key: str | None) -> None:
    """Random features for all videos of an annotation file; exit code 1 if that fails."""
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8'))
        write_random_features(path, content, 8, 8, feature_key)
    except Exception as error:  # the parent says what is wrong with the annotations
        sys.exit(type(error).__name__)


def streams_of(path: Path) -> list[str]:
    """Streams of a tube file; none of an annotation file.

    Raises:
        ValueError: no video of the tube file has any.
    """
    if path.suffix == '.json' or not h5py.is_hdf5(path):
        return []
    file = TubeFile(path)
    streams = next(filter(None, map(file.streams, file.video_ids())), None)
    file.close()
    if not streams:
        raise InputError(f'{path} has no video with features')
    return sorted(streams)


def build(args: argparse.Namespace, folder: str) -> tuple[BaseDataset, float, float]:
    """The dataset with its own or stand-in features, seconds, and growth of the peak in MB.

    Raises:
        FileNotFoundError: annotations or features do not exist.
        ValueError: they cannot be used.
    """
    if not args.ann_file.is_file():
        raise MissingFileError(f'annotation file {args.ann_file} does not exist')
    features, streams = args.features, streams_of(args.ann_file)
    if features is None and not streams:
        features = str(Path(folder, 'features.hdf5'))
        # in a process of its own: its memory must not hide in the peak before the measurement
        writer = multiprocessing.Process(
            target=write_stand_in, args=(features, args.ann_file, args.feature_key)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            read_annotations(args.ann_file)  # says what is wrong
            raise InputError(f'no features could be made up for {args.ann_file}')
    before, started = peak_mb(), time.perf_counter()
    dataset = (
        TubeGroundingDataset(str(args.ann_file), streams)
        if streams
        else (
            TemporalGroundingDataset(
                ann_file=str(args.ann_file),
                data_prefix=dict(features=features),
                feature_key=args.feature_key,
            )
        )
    )
    return dataset, time.perf_counter() - started, peak_mb() - before


def main(argv=None) -> int:
    """Measure and print; returns the exit code."""
    args = parse_args(argv)
    with plain_errors(), tempfile.TemporaryDirectory() as folder:
        dataset, seconds, megabytes = build(args, folder)
    worker = len(pickle.dumps(dataset)) / 2**20
    table = Table(title=str(args.ann_file), title_justify='left')
    for column in ('quantity', 'measured', 'bound'):
        table.add_column(column, justify='left' if column == 'quantity' else 'right')
    table.add_row('videos', f'{len(dataset):,}', '')
    table.add_row('build', f'{seconds:.2f} s', f'{args.max_seconds:g} s')
    table.add_row('growth of peak memory', f'{megabytes:.0f} MB', f'{args.max_mb:g} MB')
    table.add_row('kept (sent to a spawned worker)', f'{worker:.1f} MB', '')
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    if args.json:
        write_json(
            dict(videos=len(dataset), seconds=seconds, peak_growth_mb=megabytes, kept_mb=worker),
            args.json,
        )
    return int(seconds > args.max_seconds or megabytes > args.max_mb)


if __name__ == '__main__':
    sys.exit(main())
