"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [options]``.

A model without weights of its own (`ZeroShotGrounding`) takes no checkpoint.
"""

import argparse
import sys
from pathlib import Path

import mmn_plugin  # noqa: F401  makes the rest importable, in many processes at once too

# isort: split
from mmengine.config import Config
from mmengine.runner import Runner

from mmn_plugin.cli.main import explicit_amp, run_command, run_parser
from mmn_plugin.config import needs_weights, require_checkpoint
from mmn_plugin.datasets import TubeGroundingDataset, dataset_class
from mmn_plugin.engine import add_amp, apply_test_amp
from mmn_plugin.errors import InputError
from mmn_plugin.files import writable_file

DUMPS = {'.json': 'DumpPredictions', '.pkl': 'DumpResults', '.pickle': 'DumpResults'}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = run_parser('Evaluate a checkpoint on the test split.')
    add = parser.add_argument
    text = 'checkpoint (.pth); none of a model without weights of its own'
    add('checkpoint', nargs='?', help=text)
    text = 'write the predictions: FILE.json for `mmn eval`, FILE.pkl for data samples as MMAction2'
    add('--dump', metavar='FILE', help=text)
    text = 'write the answers as the challenge takes them, for `mmn eval` too: tubes of HC-STVG '
    add('--submission', metavar='FILE', help=text + '(.json), moments of QVHighlights (.jsonl)')
    text = 'draw timelines and moment maps, or tubes, of some videos into this folder'
    add('--show-dir', metavar='DIR', help=text)
    text = 'with --show-dir: draw one of how many videos (default: 10)'
    add('--interval', type=int, default=10, help=text)
    text = 'with --show-dir: folder with VIDEO_ID.mp4 and so on, for thumbnails and tubes'
    add('--video-dir', metavar='DIR', help=text)
    add_amp(parser)
    # options may stand between the config and the checkpoint
    return parser.parse_intermixed_args(explicit_amp(sys.argv[1:]))


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's options into the config."""
    if args.checkpoint is None and needs_weights(cfg):
        raise InputError(f'{args.config} is of a model with weights: give a checkpoint to test')
    cfg.load_from = args.checkpoint and require_checkpoint(args.checkpoint)
    cfg.resume = False
    for path in filter(None, (args.dump, args.submission)):
        writable_file(path)
    if args.amp:
        apply_test_amp(cfg, args.amp)
    add_writers(cfg, args)
    if args.show_dir:
        pictures = dict(
            type='GroundingVisualizationHook',
            interval=args.interval,
            max_videos=None,
            video_dir=args.video_dir,
            out_dir=args.show_dir,
        )
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), pictures]


def add_writers(cfg: Config, args: argparse.Namespace) -> None:
    """Let the test write the files that the command line asks for, moments or tubes."""
    if not (args.dump or args.submission):
        return
    evaluators = cfg.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    kind = dataset_class(cfg)
    tubes = kind is not None and issubclass(kind, TubeGroundingDataset)
    if args.dump:
        suffix = Path(args.dump).suffix
        if suffix not in DUMPS:
            raise InputError(f'--dump writes .json or .pkl files, not {args.dump}')
        if tubes and suffix == '.json':
            raise InputError(
                '--dump FILE.json is for moments; of tubes --submission FILE.json writes the '
                'answers'
            )
        evaluators.append(dict(type=DUMPS[suffix], out_file_path=args.dump))
    if args.submission:
        submission = getattr(kind, 'submission', None)
        if submission is None:
            raise InputError(
                '--submission is for tubes and for QVHighlightsDataset; of other moments --dump '
                'FILE.json writes the answers'
            )
        for metric in evaluators:
            if metric['type'] == 'TubeGroundingMetric':
                metric['require_truth'] = False  # a challenge keeps it to itself
        evaluators.append(dict(type=submission, out_file_path=args.submission))
    cfg.test_evaluator = evaluators


if __name__ == '__main__':
    run_command(parse_args(), merge_args, Runner.test)
