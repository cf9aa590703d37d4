"""Run a tool as the shell would, in this process (a new one spends seconds on imports)."""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock

from .kept_runs import forget_runs

ROOT = Path(__file__).resolve().parents[2]


def run_tool(name: str, *arguments) -> tuple[int, str]:
    """Exit code, and what was printed, of ``tools/<name> <arguments>``, or of ``mmn``."""
    script = ROOT / 'mmn.py' if name == 'mmn' else ROOT / 'tools' / name
    output = io.StringIO()
    forget_runs()
    with (
        mock.patch.object(sys, 'argv', [str(script), *map(str, arguments)]),
        mock.patch.object(sys, 'path', [str(script.parent), *sys.path]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            runpy.run_path(str(script), run_name='__main__')
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=output)
                return 1, output.getvalue()
            return stop.code or 0, output.getvalue()
    return 0, output.getvalue()
