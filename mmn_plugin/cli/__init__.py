"""Command line."""

from .command_line import end_distributed, require_launcher, run_command, run_parser, whole_number

__all__ = ['end_distributed', 'require_launcher', 'run_command', 'run_parser', 'whole_number']
