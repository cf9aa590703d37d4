"""tools/run_tests.sh, and how tests are shared out to workers."""

import os
import re
import runpy
import shutil
import subprocess
import sys
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


@pytest.mark.parametrize(
    ('xdist', 'workers'), [(0, '-n auto --dist loadfile --no-loadscope-reorder '), (1, '')]
)
def test_options_and_the_exit_code_of_pytest_pass_through(tmp_path, xdist, workers):
    python = tmp_path / 'python'
    python.write_text(PYTHON.format(xdist))
    python.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key != 'OMP_NUM_THREADS'}
    done = subprocess.run(
        ['bash', str(ROOT / 'tools' / 'run_tests.sh'), 'tests/a.py', '-k', 'one or two', '-n', '0'],
        env=dict(environment, MMN_PYTHON=str(python)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert done.stdout == (
        f'-m pytest -q {workers}tests/a.py -k one or two -n 0 / OMP_NUM_THREADS=1\n'
    )


def test_files_that_begin_are_there(conftest):
    assert not [name for name in conftest.LONGEST if not (ROOT / 'tests' / name).is_file()]


@pytest.mark.parametrize(
    ('source', 'arguments', 'cores', 'expected'),
    [
        ('ARGS', ['{file}'], 2, 0),
        ('ARGS', ['{file}::test_one', '{file}::test_other'], 2, 0),
        ('ARGS', ['{file}', '{file}x'], 2, 2),
        ('ARGS', ['{folder}'], 2, 2),
        ('TESTPATHS', ['tests'], 1, 1),
        ('TESTPATHS', ['tests'], 64, 4),
    ],
)
def test_a_single_file_needs_no_workers(conftest, monkeypatch, source, arguments, cores, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(cores), raising=False)
    config = SimpleNamespace(
        ArgsSource=pytest.Config.ArgsSource,
        args_source=pytest.Config.ArgsSource[source],
        args=[text.format(file=__file__, folder=os.path.dirname(__file__)) for text in arguments],
    )
    assert conftest.pytest_xdist_auto_num_workers(config) == expected


def test_workers_begin_with_the_longest_files(conftest):
    paths = [ROOT / 'tests' / name for name in ('a.py', *reversed(conftest.LONGEST), 'b.py')]
    items = [SimpleNamespace(path=path) for path in paths]
    options = dict(getoption=dict(random_order=None).get)
    conftest.pytest_collection_modifyitems(SimpleNamespace(**options), items)
    assert [item.path for item in items] == paths  # no worker
    conftest.pytest_collection_modifyitems(SimpleNamespace(**options, workerinput={}), items)
    names = [str(item.path.relative_to(ROOT / 'tests')) for item in items]
    assert names == [*conftest.LONGEST, 'a.py', 'b.py']


def test_a_seed_shuffles_files_and_the_tests_of_each(conftest):
    paths = [ROOT / 'tests' / f'{name}.py' for name in 'abcdefgh']
    items = [SimpleNamespace(path=path, test=test) for path in paths for test in range(9)]

    def order(seed, given=items, **worker):
        found = list(given)
        conftest.pytest_collection_modifyitems(
            SimpleNamespace(getoption=dict(random_order=seed).get, **worker), found
        )
        return [(item.path, item.test) for item in found]

    first, second = order(1), order(2)
    assert first == order(1, workerinput={}) != second  # every worker has the same
    for found in (first, second):
        assert sorted(found) == [(item.path, item.test) for item in items]
        files = [path for path, _ in found]
        assert files[::9] != paths
        assert files == [path for path in files[::9] for _ in range(9)]  # a file stays together
        assert [test for path, test in found if path == paths[0]] != list(range(9))
    alone = order(1, items[:9])
    assert alone == [entry for entry in first if entry[0] == paths[0]]


NUMBERS = """
import random, numpy, pytest, torch
from mmengine.logging import MMLogger

class OwnLogger(MMLogger):
    pass

def draw():
    return random.random(), numpy.random.rand(), torch.rand(1).item()

IMPORTED = draw()

@pytest.fixture(scope='module')
def shared():
    return draw()

@pytest.mark.parametrize('number', range(4))
def test_numbers(number, shared, request):
    for kind in (MMLogger, OwnLogger):
        assert not kind._instance_dict
        kind.get_instance('one of this test')
    print(number, IMPORTED, shared, draw())
    draw()
"""


def test_random_numbers_and_loggers_do_not_depend_on_the_order(tmp_path):
    tests = tmp_path / 'tests'
    tests.mkdir()
    shutil.copy(ROOT / 'tests/conftest.py', tests)
    for name in 'ab':
        (tests / f'test_{name}.py').write_text(NUMBERS)
    (tmp_path / 'helpers').mkdir()  # in place of what takes long to import
    (tmp_path / 'helpers/formatting.py').write_text('remember_formatting = int')
    shutil.copy(ROOT / 'tests/helpers/kept_runs.py', tmp_path / 'helpers')
    (tmp_path / 'mmn_plugin.py').write_text('import mmengine.logging')
    printed = []
    for seed in (0, 1):
        done = subprocess.run(
            [
                sys.executable,
                '-m',
                'pytest',
                '-q',
                '-s',
                '-p',
                'no:xdist',
                '--random-order',
                str(seed),
                str(tests),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ, PYTHONPATH=str(tmp_path)),
        )
        assert done.returncode == 0, done.stdout
        printed.append(re.findall(r'^\.?(\d) (\(.*)$', done.stdout, re.MULTILINE))
    assert len(printed[0]) == 8
    assert sorted(printed[0]) == sorted(printed[1])
    assert printed[0] != printed[1]
    assert len({numbers for _, numbers in printed[0]}) == 1
