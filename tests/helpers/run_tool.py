"""Run a tool as the shell would, in this process (a new one spends seconds on imports)."""

import argparse
import contextlib
import io
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

from mmengine.config import DictAction

from mmn_plugin.config import load_config

from .kept_runs import forget_runs

ROOT = Path(__file__).resolve().parents[2]


def run_tool(line: str, *arguments) -> tuple[int, str]:
    """Exit code, and what was printed, of a tool below ``tools/``, or of ``mmn``.

    Args:
        line (str): Its name and arguments. Every ``{}`` stands for the next of `arguments`, such as
            a path, which may hold spaces.
        *arguments: Those, and what comes after the line.
    """
    values = iter(arguments)
    words = [re.sub('{}', lambda _: str(next(values)), word) for word in line.split()]
    name, *given = [*words, *map(str, values)]
    script = ROOT / 'mmn.py' if name == 'mmn' else ROOT / 'tools' / name
    output = io.StringIO()
    forget_runs()
    with (
        mock.patch.object(sys, 'argv', [str(script), *given]),
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


def output_of(line: str, *arguments, code: int = 0) -> str:
    """What `run_tool` printed, which ended with this exit code and without a traceback."""
    found, output = run_tool(line, *arguments)
    assert found == code, output
    assert 'Traceback' not in output
    return output


def page_lines(component: str) -> str:
    """The lines of a config with which docs/train.md switches something on."""
    page = (ROOT / 'docs/train.md').read_text()
    (block,) = (b for b in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if component in b)
    return block


def config_with(path, options):
    """A config with options of the command line, ``KEY=VALUE``."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--options', nargs='*', action=DictAction)
    return load_config(str(path), parser.parse_args(['--options', *options]).options)
