"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [options]``."""

import sys
from pathlib import Path

from mmengine.runner import Runner

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.cli.command_line import explicit_amp, run_command, run_parser
from mmn_plugin.config import require_checkpoint
from mmn_plugin.datasets import grounds_tubes
from mmn_plugin.engine import add_amp, apply_test_amp
from mmn_plugin.errors import InputError
from mmn_plugin.files import writable_file


def parse_args():
    """Read the command line."""
    parser = run_parser('Evaluate a checkpoint on the test split.')
    parser.add_argument('checkpoint', help='checkpoint (.pth)')
    parser.add_argument(
        '--dump',
        metavar='FILE',
        help='write the predictions: FILE.json for `mmn eval`, '
        'FILE.pkl for the data samples as in MMAction2',
    )
    parser.add_argument(
        '--submission',
        metavar='FILE.json',
        help='write the tubes of a spatio-temporal test as the HC-STVG challenge takes them, for '
        '`mmn eval` too',
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='draw timelines and moment maps, or tubes, of some videos into this folder',
    )
    parser.add_argument(
        '--interval',
        type=int,
        default=10,
        help='with --show-dir: draw one of how many videos (default: 10)',
    )
    parser.add_argument(
        '--video-dir',
        metavar='DIR',
        help='with --show-dir: folder with VIDEO_ID.mp4 and so on, for thumbnails and tubes',
    )
    add_amp(parser)
    return parser.parse_args(explicit_amp(sys.argv[1:]))


def merge_args(cfg, args):
    """Write the command line's options into the config."""
    cfg.load_from, cfg.resume = require_checkpoint(args.checkpoint), False
    for path in (args.dump, args.submission):
        if path:
            writable_file(path)
    if args.amp:
        apply_test_amp(cfg, args.amp)
    refuse_other_answers(cfg, args)
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


def refuse_other_answers(cfg, args):
    """Refuse files of moments where the answers are tubes, and the other way round."""
    tubes = grounds_tubes(cfg)
    if tubes and (args.dump or '').endswith('.json'):
        raise InputError(
            '--dump FILE.json is for moments; of tubes --submission FILE.json writes the answers'
        )
    if args.submission and not tubes:
        raise InputError(
            '--submission is for tubes; of moments --dump FILE.json writes the answers'
        )


def add_writers(cfg, args):
    """Let the test write the files that the command line asks for."""
    evaluators = cfg.test_evaluator
    evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
    writers = [dump_metric(args.dump)] if args.dump else []
    if args.submission:
        writers.append(dict(type='DumpTubeSubmission', out_file_path=args.submission))
        for metric in evaluators:
            if metric['type'] == 'TubeGroundingMetric':
                metric['require_truth'] = False  # a challenge keeps it to itself
    if writers:
        cfg.test_evaluator = [*evaluators, *writers]


def dump_metric(path):
    """Metric that writes the predictions in the format of the file's suffix."""
    writers = {'.json': 'DumpPredictions', '.pkl': 'DumpResults', '.pickle': 'DumpResults'}
    suffix = Path(path).suffix
    if suffix not in writers:
        raise InputError(f'--dump writes .json or .pkl files, not {path}')
    return dict(type=writers[suffix], out_file_path=path)


def main():
    """Build the Runner from the config and test."""
    run_command(parse_args(), merge_args, Runner.test)


if __name__ == '__main__':
    main()
