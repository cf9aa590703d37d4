"""What tools/train.py and tools/test.py have in common."""

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mmaction.registry import RUNNERS
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmn_plugin.files import writable_folder

from ..preempted import Preempted
from .command_line import plain_errors
from .end_distributed import end_distributed
from .launcher import require_launcher
from .load_config import load_config, print_warning
from .told_once import mark_explained


def run_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every command that runs a config.

    Args:
        description (str): what the command does.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='values that replace those of the config: key=value, key="[a,b]", a.b.c=value',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser


def run_command(
    args: argparse.Namespace,
    merge: Callable[[Config, argparse.Namespace], None],
    action: Callable[[Runner], object],
    strict: bool,
) -> None:
    """Build the Runner from the command line, and let it do something; ends the process if that
    fails or is preempted, and in a distributed run.

    Args:
        args (argparse.Namespace): from a `run_parser`.
        merge (Callable): writes the command's own arguments into the config.
        action (Callable): what the Runner shall do, such as ``Runner.train``.
        strict (bool): whether a checkpoint's weights must fit one by one; see
            `CheckpointCheckHook`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    with plain_errors():
        require_launcher(args.launcher)
        doubts: list[str] = []
        config = load_config(args.config, args.cfg_options, warn=doubts.append)
        config.launcher = args.launcher
        if args.work_dir or not config.get('work_dir'):
            config.work_dir = args.work_dir or str(Path('work_dirs') / Path(args.config).stem)
        writable_folder(config.work_dir)
        merge(config, args)
        check = dict(type='CheckpointCheckHook', strict=strict)
        config.custom_hooks = [*(config.get('custom_hooks') or []), check]
        runner = build_runner(config, doubts)
        try:
            action(runner)
        except Preempted as stop:  # its reason is in the log
            with suppress(OSError):
                mark_explained()
            end_distributed(runner, stop.code)
            raise
    end_distributed(runner)


def build_runner(config: Config, doubts: list[str]) -> Runner:
    """Build the Runner; doubts about its options go to the log, or where there is none are printed.

    Args:
        config (Config): of the run.
        doubts (list[str]): sentences.
    """
    tell = print_warning
    try:
        runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        tell = runner.logger.warning
    finally:
        for text in doubts:
            tell(text)
    return runner
