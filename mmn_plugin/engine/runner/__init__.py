"""What the command-line tools share: CPU mixed precision, checkpoint checks, plain errors."""

from .checkpoint_check_hook import CheckpointCheckHook
from .command_line import (
    apply_amp,
    end_distributed,
    load_config,
    plain_errors,
    require_checkpoint,
)
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckpointCheckHook',
    'apply_amp',
    'end_distributed',
    'load_config',
    'plain_errors',
    'require_checkpoint',
]
