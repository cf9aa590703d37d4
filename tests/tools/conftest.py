"""A toy project with which the tools are run as a user runs them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.kept_runs import forget_runs

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / 'toy'


@pytest.fixture(scope='session')
def run_command():
    """Run a command line; returns the finished process with its output as text."""

    def run(*command, cwd, timeout=600, **environment):
        # torch's launcher must not take this process for one of its own
        kept = {k: v for k, v in os.environ.items() if k not in ('RANK', 'LOCAL_RANK')}
        path = os.pathsep.join([str(ROOT), str(TOY), os.environ.get('PYTHONPATH', '')])
        environment = {**kept, 'PYTHONPATH': path, 'PYTHON': sys.executable, **environment}
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture
def run_tool(tmp_path, monkeypatch, capsys):
    """Run ``tools/NAME`` inside this process, which saves the seconds that importing torch takes.

    Returns its exit code, what it wrote to stderr, and ``log``, the text of the run's log file.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(name, *arguments):
        path = ROOT / 'tools' / name
        spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        capsys.readouterr()
        forget_runs()
        code = 0
        try:
            tool.main()
        except SystemExit as stop:
            code = stop.code
        logs = ''.join(path.read_text() for path in sorted(tmp_path.rglob('*.log')))
        return SimpleNamespace(returncode=code, stderr=capsys.readouterr().err, log=logs)

    return run


@pytest.fixture(scope='session')
def toy_config():
    return TOY / 'toy.py'


@pytest.fixture(scope='session')
def toy_run(tmp_path_factory, run_command, toy_config):
    """Folder of one training of the toy with tools/train.py, holding epoch_1.pth."""
    folder = tmp_path_factory.mktemp('toy_run')
    done = run_command(
        sys.executable, ROOT / 'tools/train.py', toy_config, '--work-dir', folder, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder
