"""What the command-line tools share: mixed precision, checkpoint checks, plain errors."""

from .amp import add_amp, apply_amp, apply_test_amp, explicit_amp
from .argument_types import whole_number
from .checkpoint_check_hook import CheckpointCheckHook
from .checkpoint_content import require_checkpoint_content
from .command_line import plain_errors
from .end_distributed import end_distributed
from .load_config import load_config, require_checkpoint, require_device
from .cpu_amp_optim_wrapper import CPUAmpOptimWrapper
from .launcher import require_launcher
from .run_command import run_command, run_parser
from .tf32 import TF32Hook, apply_tf32, set_tf32, tf32_allowed

__all__ = [
    'CPUAmpOptimWrapper',
    'CheckpointCheckHook',
    'TF32Hook',
    'add_amp',
    'apply_amp',
    'apply_test_amp',
    'apply_tf32',
    'end_distributed',
    'explicit_amp',
    'load_config',
    'plain_errors',
    'require_checkpoint',
    'require_checkpoint_content',
    'require_device',
    'require_launcher',
    'run_command',
    'run_parser',
    'set_tf32',
    'tf32_allowed',
    'whole_number',
]
