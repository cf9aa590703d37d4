"""The random numbers of one process: read, set, kept apart."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def random_state() -> dict:
    """State of Python's, NumPy's and PyTorch's generators, as plain data and CPU tensors.

    Returns:
        dict: ``python`` (tuple), ``numpy`` (tuple, its keys a tensor), ``torch`` (uint8 tensor)
            and, where CUDA is in use, ``cuda`` (uint8 tensor) of the current device.
    """
    algorithm, keys, *rest = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Set the generators to what `random_state` returned, on whatever device it was loaded."""
    random.setstate(state['python'])
    algorithm, keys, *rest = state['numpy']
    np.random.set_state((algorithm, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def isolated_random_state() -> Iterator[None]:
    """Whatever draws random numbers within leaves no trace outside, also when it raises."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
