"""A tiny corpus in the published layout."""

import json

import h5py
import numpy as np
import pytest
from helpers.tiny_corpus import PIPELINE

ANNOTATIONS = {
    'kitchen.avi': dict(
        fps=25.0,
        num_frames=500,
        timestamps=[[0, 100], [300, 200], [250, 600]],
        sentences=['He took out pot', 'reversed', 'He washed plate'],
    ),
    'garden': dict(
        duration=30.5,
        timestamps=[[-1, 4.5], [10, 30.5]],
        sentences=['a dog runs.', ' A dog sleeps.'],
    ),
}


@pytest.fixture
def corpus(tmp_path):
    """Folder with train.json and features.hdf5 (7 and 1 rows of 5 columns)."""
    (tmp_path / 'train.json').write_text(json.dumps(ANNOTATIONS))
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / 'features.hdf5', 'w') as file:
        file['kitchen.avi'] = rng.random((7, 5), dtype=np.float32)
        file['garden'] = rng.random((1, 5), dtype=np.float32)
    return tmp_path


@pytest.fixture
def pipeline():
    """Config of the usual transforms, 4 segments."""
    load, pool, pack = map(dict, PIPELINE)
    return [load, dict(pool, num_segments=4), pack]
