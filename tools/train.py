"""Train a model: ``python tools/train.py CONFIG [options]``."""

import argparse
import sys

import mmn_plugin  # noqa: F401  makes the rest importable, in many processes at once too

# isort: split
from mmengine.config import Config
from mmengine.runner import Runner

from mmn_plugin.cli.main import explicit_amp, run_command, run_parser
from mmn_plugin.config import needs_weights, require_checkpoint
from mmn_plugin.engine import TrainingRecord, add_amp, apply_amp
from mmn_plugin.errors import InputError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = run_parser('Train a model.')
    add = parser.add_argument
    text = 'resume from this checkpoint; without a path, from the latest in the work folder'
    add('--resume', nargs='?', const='auto', help=text)
    add_amp(parser)
    add('--no-validate', action='store_true', help='do not validate while training')
    text = 'scale the learning rate with the batch size (see auto_scale_lr in the config)'
    add('--auto-scale-lr', action='store_true', help=text)
    add('--seed', type=int, help="random seed (default: the config's)")
    text = 'give each process a seed of its own'
    add('--diff-rank-seed', action='store_true', default=None, help=text)
    add('--deterministic', action='store_true', default=None, help='deterministic CUDNN')
    return parser.parse_args(explicit_amp(sys.argv[1:]))


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Write the command line's options into the config."""
    if not needs_weights(cfg):
        raise InputError(
            f'{args.config} is of a model without weights to train: test it with tools/test.py, '
            'or train MMN on the same features'
        )
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        apply_amp(cfg, args.amp)
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from'):
        require_checkpoint(cfg.load_from)
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise InputError(f'{args.config} sets no auto_scale_lr.base_batch_size to scale from')
        cfg.auto_scale_lr.enable = True
    TrainingRecord(cfg.work_dir).require_unused()
    given = {key: getattr(args, key) for key in ('seed', 'diff_rank_seed', 'deterministic')}
    given = {key: value for key, value in given.items() if value is not None}
    cfg.randomness = dict(seed=None) | dict(cfg.get('randomness') or {}) | given


if __name__ == '__main__':
    run_command(parse_args(), merge_args, Runner.train)
