"""Fixtures shared by all tests, and how they are shared out to processes."""

import os
import random
import sys
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / 'tools' / 'analysis_tools'))  # for the parts of these tools
# Nothing is asked of the Hub: what is not on the disk is absent at once, not after retries.
os.environ.setdefault('HF_HUB_OFFLINE', '1')
# Files that take longest, longest first: begun first, no process is left alone with one at the end.
LONGEST = (
    'tools/test_quickstart.py',
    'engine/test_survival.py',
    'engine/test_faults_of_machines.py',
    'tools/test_dist.py',
    'tools/test_launch.py',
    'compat/test_fresh_process.py',
    'tools/test_verify_reference.py',
    'test_readme.py',
    'apis/test_real_videos.py',
    'webui/test_page.py',
    'tools/test_train_test.py',
    'engine/test_setup_checks.py',
    'cli/test_check.py',
    'tools/test_convert_datasets.py',
    'tools/test_benchmark.py',
)


def pytest_addoption(parser):
    """Let the order of tests be chosen."""
    parser.addoption(
        '--random-order',
        type=int,
        metavar='SEED',
        help='Run the files of tests, and the tests of every file, in an order drawn from a seed. '
        'Defaults to the longest files first, and the order in the file.',
    )


def pytest_report_header(config):
    """How to have the same order again."""
    seed = config.getoption('random_order')
    return None if seed is None else f'random order: --random-order {seed}'


def pytest_collection_modifyitems(config, items):
    """In the order of a seed, or the longest files first where workers take one after the other."""
    seed = config.getoption('random_order')
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    if seed is not None:
        random.Random(seed).shuffle(files)
        for tests in files:  # of each file the same where it runs alone
            random.Random(f'{seed} {tests[0].path.name}').shuffle(tests)
    elif hasattr(config, 'workerinput'):
        places = {ROOT / 'tests' / name: place for place, name in enumerate(LONGEST)}
        files.sort(key=lambda tests: places.get(tests[0].path, len(places)))
    items[:] = [test for tests in files for test in tests]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """How many are taken with ``-n auto``: none for a single file, which only one could do."""
    files = {argument.partition('::')[0] for argument in config.args}
    if len(files) == 1 and Path(*files).is_file():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return min(cores, 4)  # the longest file takes about a quarter of the time of all


def pytest_configure(config):
    """Let every worker's pages look for a free port in a place of their own."""
    if hasattr(config, 'workerinput'):
        number = int(config.workerinput['workerid'].removeprefix('gw'))
        os.environ.setdefault('GRADIO_SERVER_PORT', str(7860 + 100 * number))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """Import what tests need, first of all; not where workers of xdist will."""
    if session.config.pluginmanager.has_plugin('dsession'):
        return
    import torch
    from helpers.kept_runs import skip_formatting

    import mmn_plugin  # noqa: F401  (registers the components and cures the stack)

    # Tests are small: threads that spin for each other cost more than they save.
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1').partition(',')[0]))
    # a forked process that computed in several threads would wait for its parent's for ever
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
    skip_formatting()


@pytest.fixture(scope='session')
def shared() -> Path:
    """Folder with the real annotations and golden figures; tests that need it skip without it."""
    folder = Path(os.environ.get('MMN_SHARED', ROOT.parent / 'shared'))
    if not (folder / 'golden').is_dir():
        pytest.skip(f'no reference material at {folder} (set MMN_SHARED to its folder)')
    return folder


@pytest.fixture(scope='session')
def golden(shared):
    """`golden('tacos_pool')` is the opened file of that name."""
    return lambda name: np.load(shared / 'golden' / f'{name}.npz', allow_pickle=False)


@pytest.fixture(scope='session')
def zygote():
    """Starts runs in processes forked from one that has imported everything."""
    from helpers.zygote import Zygote

    return Zygote()


def _seed():
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart(collector):
    """Numbers that a file draws when it is imported do not depend on the files before."""
    if isinstance(collector, pytest.Module):
        _seed()


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Nor do those of a fixture that several tests share depend on the tests before."""
    if fixturedef.scope != 'function':
        _seed()


@pytest.fixture(autouse=True)
def _seeded():
    _seed()


@pytest.fixture(autouse=True, scope='module')
def _file_alone():
    """Take back what runs in this process set in the environment, such as LOCAL_RANK."""
    from helpers.kept_runs import forget_runs

    forget_runs()
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def _test_alone(_file_alone):
    """Take back what MMEngine keeps of runs that are made within: loggers, scopes and so on.

    A logger among it would write to where standard output was in that test, at its level; and by
    names that hold the second it could be the next run's. And of a function PyTorch compiles no
    more than 8 variants, whoever asks for them.
    """
    import torch
    from helpers.kept_runs import freeze_imports, kept_of_runs

    freeze_imports()
    kept = [(instances, dict(instances)) for instances in kept_of_runs()]
    yield
    for instances, before in kept:
        instances.clear()
        instances.update(before)
    torch.compiler.reset()


@pytest.fixture(scope='session')
def c3d_weights(tmp_path_factory):
    """C3D in its real size, with random weights: 300 MB."""
    from helpers.tiny_extractors import save_weights

    from mmn_plugin.features.recognizer import RecognizerConfig

    name = 'mmaction::recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py'
    path = tmp_path_factory.mktemp('c3d') / 'c3d.pth'
    save_weights(RecognizerConfig(name).model, path, 'backbone.')
    yield str(path)
    path.unlink()
