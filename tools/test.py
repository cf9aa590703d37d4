"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT [options]``."""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmn_plugin  # noqa: F401, I001  first, since it makes the rest importable
from mmengine.config import DictAction
from mmengine.runner import Runner

from mmaction.registry import RUNNERS
from mmn_plugin.engine.runner import (
    end_distributed,
    load_config,
    plain_errors,
    require_checkpoint,
)


def parse_args():
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint on the test split.')
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument('checkpoint', help='checkpoint (.pth)')
    parser.add_argument('--work-dir', help='folder for logs (default: work_dirs/NAME)')
    parser.add_argument(
        '--dump',
        metavar='FILE',
        help='write the predictions: FILE.json for tools/analysis_tools/eval_predictions.py, '
        'FILE.pkl for the data samples as in MMAction2',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='values that replace those of the config: key=value, key="[a,b]", a.b.c=value',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def merge_args(cfg, args):
    """Write the command line's options into the config."""
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
    cfg.load_from, cfg.resume = require_checkpoint(args.checkpoint), False
    if args.dump:
        evaluators = cfg.test_evaluator
        evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
        cfg.test_evaluator = [*evaluators, dump_metric(args.dump)]
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or []),
        dict(type='CheckpointCheckHook', strict=True),
    ]
    return cfg


def dump_metric(path):
    """Metric that writes the predictions in the format of the file's suffix."""
    writers = {'.json': 'DumpPredictions', '.pkl': 'DumpResults', '.pickle': 'DumpResults'}
    suffix = Path(path).suffix
    if suffix not in writers:
        raise ValueError(f'--dump writes .json or .pkl files, not {path}')
    return dict(type=writers[suffix], out_file_path=path)


def main():
    """Build the Runner from the config and test."""
    args = parse_args()
    with plain_errors():
        cfg = merge_args(load_config(args.config, args.cfg_options), args)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.test()
    end_distributed(runner)


if __name__ == '__main__':
    main()
