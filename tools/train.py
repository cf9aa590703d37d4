"""Train a model: ``python tools/train.py CONFIG [options]``."""

import sys

from mmengine.runner import Runner

import mmn_plugin  # noqa: F401  makes the rest importable
from mmn_plugin.cli.command_line import explicit_amp, run_command, run_parser
from mmn_plugin.config import require_checkpoint
from mmn_plugin.engine import TrainingRecord, add_amp, apply_amp
from mmn_plugin.errors import InputError


def parse_args():
    """Read the command line."""
    parser = run_parser('Train a model.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest in the work folder',
    )
    add_amp(parser)
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
    return parser.parse_args(explicit_amp(sys.argv[1:]))


def merge_args(cfg, args):
    """Write the command line's options into the config."""
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
    given = dict(
        seed=args.seed,
        diff_rank_seed=args.diff_rank_seed or None,
        deterministic=args.deterministic or None,
    )
    TrainingRecord(cfg.work_dir).require_unused()
    cfg.randomness = (
        dict(seed=None)
        | dict(cfg.get('randomness') or {})
        | {key: value for key, value in given.items() if value is not None}
    )


def main():
    """Build the Runner from the config and train."""
    run_command(parse_args(), merge_args, Runner.train)


if __name__ == '__main__':
    main()
