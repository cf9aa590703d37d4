"""Train a model: ``python tools/train.py CONFIG [options]``."""

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
    apply_amp,
    end_distributed,
    load_config,
    plain_errors,
    require_checkpoint,
)


def parse_args():
    parser = argparse.ArgumentParser(description='Train a model.')
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest in the work folder',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (float16; on a CPU bfloat16)'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate while training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size (see auto_scale_lr in the config)',
    )
    parser.add_argument('--seed', type=int, help="random seed (default: the config's)")
    parser.add_argument(
        '--diff-rank-seed', action='store_true', help='give each process a seed of its own'
    )
    parser.add_argument('--deterministic', action='store_true', help='deterministic CUDNN')
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
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        apply_amp(cfg)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise ValueError(f'{args.config} sets no auto_scale_lr.base_batch_size to scale from')
        cfg.auto_scale_lr.enable = True
    given = dict(
        seed=args.seed,
        diff_rank_seed=args.diff_rank_seed or None,
        deterministic=args.deterministic or None,
    )
    cfg.randomness = (
        dict(seed=None)
        | dict(cfg.get('randomness') or {})
        | {key: value for key, value in given.items() if value is not None}
    )
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or []),
        dict(type='CheckpointCheckHook', strict=False),
    ]
    return cfg


def main():
    """Build the Runner from the config and train."""
    args = parse_args()
    with plain_errors():
        cfg = merge_args(load_config(args.config, args.cfg_options), args)
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.train()
    end_distributed(runner)


if __name__ == '__main__':
    main()
