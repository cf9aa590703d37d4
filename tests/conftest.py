"""Fixtures shared by all tests."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import mmn_plugin  # noqa: F401  (registers the components and cures the stack)

# Tests are small: threads that spin for each other cost more than they save.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)
