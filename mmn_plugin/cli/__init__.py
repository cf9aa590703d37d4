"""Command line."""

from .command_line import (
    build_dataset,
    end_distributed,
    require_launcher,
    run_command,
    run_parser,
    whole_number,
)

__all__ = [
    'build_dataset',
    'end_distributed',
    'require_launcher',
    'run_command',
    'run_parser',
    'whole_number',
]
