"""A library of videos that are random features, with the model that embeds them."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.library import MomentLibrary

from .tiny_grounder import GRID, GRID_SIZE, write_grounder

SENTENCES = ['a person opens the door', 'a red box', 'then the blue box']
SECONDS = 24.0


def write_features(path: Path, names, rows=32, seed=0, extractor='grid v1 size=48') -> Path:
    """A file of features that tells its extractor, and how long its videos are."""
    rng = np.random.default_rng(seed)
    attributes = dict(extractor=extractor, stride=GRID['stride'], fps=GRID['fps'])
    with h5py.File(path, 'w') as file:
        for name in names:
            values = rng.random((rows, GRID_SIZE))
            entry = file.create_dataset(name, data=values.astype(np.float32))
            entry.attrs.update(attributes)
    return path


def small_library(folder: Path, videos: int = 6, **options) -> SimpleNamespace:
    """A model of random weights, and a library of it with videos ``v0``, ``v1``, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    grounder = write_grounder(folder)
    grounder.model = GroundingInferencer(grounder.config, grounder.checkpoint, device='cpu')
    grounder.features = write_features(folder / 'features.h5', [f'v{i}' for i in range(videos)])
    grounder.library = MomentLibrary.create(folder / 'LIB', grounder.model, **options)
    grounder.library.add(grounder.features)
    return grounder
