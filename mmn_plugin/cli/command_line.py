"""What the command-line tools share."""

import argparse
import atexit
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmaction.registry import DATASETS, RUNNERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from mmn_plugin.cli.main import explicit, tool_parser
from mmn_plugin.config import config_errors, load_config, print_warning, require_parts
from mmn_plugin.engine.preemption import Preempted
from mmn_plugin.errors import ConfigError, InputError, plain_errors
from mmn_plugin.files import writable_folder
from mmn_plugin.precision import AMP


def end_distributed(runner: Runner | None = None, code: int = 0) -> None:
    """End a process of a distributed run that is over; does nothing in an ordinary run.

    gloo's threads can outlive the interpreter, which then ends now and then with "terminate called
    without an active exception" (https://github.com/pytorch/pytorch/issues/190489), and a finished
    training counts as failed; ``destroy_process_group`` alone does not prevent it. So whatever is
    still to be written is written here, and the process ends without tearing down the rest.

    Args:
        runner (Runner, optional): its visualization back ends are closed. Defaults to None.
        code (int): exit code. Defaults to 0.
    """
    if not torch.distributed.is_initialized():
        return
    try:
        if runner is not None:
            runner.visualizer.close()
    except Exception as error:  # figures are saved; a back end's end must not undo the run
        print(f'closing the visualizer failed: {error}', file=sys.stderr)
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_LAUNCHERS = {  # what calls the processes, and what it sets
    'pytorch': (
        'torchrun (`bash tools/dist_train.sh CONFIG PROCESSES` calls it)',
        ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    ),
    'slurm': (
        'srun (`bash tools/slurm_train.sh` calls it, without --launcher slurm)',
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    ),
    'mpi': (
        "Open MPI's mpirun, with MASTER_ADDR set",
        (*(f'OMPI_COMM_WORLD_{name}' for name in ('RANK', 'LOCAL_RANK', 'SIZE')), 'MASTER_ADDR'),
    ),
}


def require_launcher(name: str) -> None:
    """Make sure that this process was started as ``--launcher`` says.

    Args:
        name (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If environment variables are absent, or one that is a number is none. If there
            is no GPU, which MMEngine's ``slurm`` and ``mpi`` need.
    """
    started_by, needed = _LAUNCHERS.get(name, ('', ()))
    missing = [variable for variable in needed if not os.environ.get(variable)]
    if missing:
        raise InputError(
            f'--launcher {name} is for processes that are started by {started_by}, which sets '
            f'{", ".join(missing)}; for one process leave --launcher out'
        )
    for variable in needed:
        number = variable not in ('MASTER_ADDR', 'SLURM_NODELIST')
        if number and not os.environ[variable].isdecimal():
            raise InputError(
                f'{variable}={os.environ[variable]} is no number, which --launcher {name} needs'
            )
    if name in ('slurm', 'mpi') and get_device() == 'cpu':
        raise InputError(
            f'--launcher {name} needs GPUs, and this process sees none: on CPUs use '
            '`bash tools/dist_train.sh`, or `tools/slurm_train.sh` with '
            'GPUS_PER_NODE=0 PROCESSES=N'
        )


def run_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of every command that runs a config."""
    parser = tool_parser(description, config=True)
    add = parser.add_argument
    add('--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)')
    add('--launcher', choices=['none', *_LAUNCHERS], default='none')
    add('--local_rank', '--local-rank', type=int, default=0)
    return parser


def explicit_amp(argv: Sequence[str]) -> list[str]:
    """A command line in which a bare ``--amp`` does not swallow the config that follows it."""
    return explicit(argv, '--amp', 'auto', '|'.join(AMP))


def run_command(
    args: argparse.Namespace,
    merge: Callable[[Config, argparse.Namespace], None],
    action: Callable[[Runner], object],
) -> None:
    """Build the Runner from the command line, and let it do something; ends the process if that
    fails or is preempted, and in a distributed run.

    Args:
        args (argparse.Namespace): from a `run_parser`.
        merge (Callable): writes the command's own arguments into the config.
        action (Callable): what the Runner shall do, such as ``Runner.train``.
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
        check_weights(config)
        runner = build_runner(config, doubts)
        try:
            action(runner)
        except Preempted as stop:  # its reason is in the log
            end_distributed(runner, stop.code)
            raise
    end_distributed(runner)


def check_weights(config: Config) -> None:
    """Add `CheckpointWeightsHook` to a config whose own hooks do not compare a checkpoint."""
    hooks = [*(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])]
    if not any(isinstance(h, dict) and h.get('type') == 'CheckpointIdentityHook' for h in hooks):
        check = dict(type='CheckpointWeightsHook')
        config.custom_hooks = [*(config.get('custom_hooks') or []), check]


# What the Runner builds by `build_NAME` when it is needed.
_BUILT_LATER = ('train_loop', 'val_loop', 'test_loop', 'optim_wrapper', 'param_scheduler')


def build_dataset(config: Config, split: str):
    """The dataset of a split, ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: If the config has none, or it cannot be built as the config says.
    """
    loader = config.get(f'{split}_dataloader')
    if not loader:
        raise ConfigError(f'{config.filename or "the config"} has no {split}_dataloader')
    with config_errors(config):
        return DATASETS.build(loader.dataset)


def build_runner(config: Config, doubts: list[str]) -> Runner:
    """Build the Runner; doubts about its options go to the log, or where there is none are printed.

    Raises:
        ConfigError: If something cannot be built as the config says; also later, when the Runner
            builds the rest: loops with their data loaders, optimizer, and parameter schedulers.
    """
    require_parts(config)
    tell = print_warning
    try:
        with config_errors(config):
            runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
        tell = runner.logger.warning
    finally:
        for text in doubts:
            tell(text)
    for name in _BUILT_LATER:
        build = getattr(runner, f'build_{name}')
        setattr(runner, f'build_{name}', config_errors(config)(build))
    return runner
