"""Fixtures shared by all tests, and how they are shared out to processes."""
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Files that take longest, longest first: begun first, no process is left alone with one at the end.
LONGEST = (
    'tools/test_quickstart.py',
    'engine/test_survival.py',
    'tools/test_dist.py',
    'engine/test_faults_of_machines.py',
    'tools/test_launch.py',
    'tools/test_benchmark.py',
    'test_readme.py',
    'tools/test_convert_datasets.py',
    'tools/test_check_dataset.py',
    'tools/test_train_test.py',
    'tools/test_verify_reference.py',
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """How many are taken with ``-n auto``: none for a single file, which only one could do."""
    from_command_line = config.args_source is config.ArgsSource.ARGS
    files = {argument.partition('::')[0] for argument in config.args}
    if from_command_line and len(files) == 1 and Path(*files).is_file():
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
    from helpers.formatting import remember_formatting

    import mmn_plugin  # noqa: F401  (registers the components and cures the stack)

    # Tests are small: threads that spin for each other cost more than they save.
    torch.set_num_threads(1)
    remember_formatting()


def pytest_collection_modifyitems(config, items):
    """Begin with the longest files where workers take them one after the other."""
    if hasattr(config, 'workerinput'):
        places = {ROOT / 'tests' / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(places)))


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

    with Zygote() as zygote:
        yield zygote


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
