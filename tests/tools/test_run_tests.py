"""tools/run_tests.sh, and how tests are shared out to workers."""
import os
import runpy
import subprocess
from types import SimpleNamespace

import pytest
from helpers.run_tool import ROOT

PYTHON = """#!/bin/bash
[ "$*" = '-c import xdist' ] && exit {}
echo "$* / OMP_NUM_THREADS=$OMP_NUM_THREADS"
exit 5
"""


@pytest.fixture(scope='module')
def conftest():
    return SimpleNamespace(**runpy.run_path(str(ROOT / 'tests' / 'conftest.py')))


@pytest.mark.parametrize(('xdist', 'workers'), [
    (0, '-n auto --dist loadfile --no-loadscope-reorder '), (1, '')])
def test_options_and_the_exit_code_of_pytest_pass_through(tmp_path, xdist, workers):
    python = tmp_path / 'python'
    python.write_text(PYTHON.format(xdist))
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_NUM_THREADS'}
    done = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'run_tests.sh'), 'tests/a.py', '-k', 'one or two', '-n', '0'],
        env=dict(environment, MMN_PYTHON=str(python)), capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stdout == (
        f'-m pytest -q {workers}tests/a.py -k one or two -n 0 / OMP_NUM_THREADS=1\n')


def test_files_that_begin_are_there(conftest):
    assert not [name for name in conftest.LONGEST if not (ROOT / 'tests' / name).is_file()]


@pytest.mark.parametrize(('source', 'arguments', 'cores', 'expected'), [
    ('ARGS', ['{file}'], 2, 0),
    ('ARGS', ['{file}::test_one', '{file}::test_other'], 2, 0),
    ('ARGS', ['{file}', '{file}x'], 2, 2),
    ('ARGS', ['{folder}'], 2, 2),
    ('TESTPATHS', ['tests'], 1, 1),
    ('TESTPATHS', ['tests'], 64, 4)])
def test_a_single_file_needs_no_workers(
        conftest, monkeypatch, source, arguments, cores, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(cores), raising=False)
    config = SimpleNamespace(
        ArgsSource=pytest.Config.ArgsSource, args_source=pytest.Config.ArgsSource[source],
        args=[text.format(file=__file__, folder=os.path.dirname(__file__)) for text in arguments])
    assert conftest.pytest_xdist_auto_num_workers(config) == expected


def test_workers_begin_with_the_longest_files(conftest):
    paths = [ROOT / 'tests' / name for name in ('a.py', *reversed(conftest.LONGEST), 'b.py')]
    items = [SimpleNamespace(path=path) for path in paths]
    conftest.pytest_collection_modifyitems(SimpleNamespace(), items)
    assert [item.path for item in items] == paths  # no worker
    conftest.pytest_collection_modifyitems(SimpleNamespace(workerinput={}), items)
    names = [str(item.path.relative_to(ROOT / 'tests')) for item in items]
    assert names == [*conftest.LONGEST, 'a.py', 'b.py']
