"""Features that mean nothing, to try the pipeline where the real ones are not at hand."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np


def write_random_features(
    path: str | Path,
    video_ids: Iterable[str],
    size: int,
    num_rows: int = 64,
    feature_key: str | None = None,
    seed: int = 0,
) -> None:
    """Write an HDF5 file in which every video has the same random features.

    The array is stored once and linked under each video, so that the file stays small whatever the
    number of videos. A model trained on it can learn nothing.

    Args:
        path (str | Path): File to write; an existing one is replaced.
        video_ids (Iterable[str]): Videos.
        size (int): D.
        num_rows (int): T. Defaults to 64.
        feature_key (str, optional): Nest the features under this name. Defaults to None: flat.
        seed (int): Seed of the random numbers. Defaults to 0.
    """
    features = np.random.default_rng(seed).standard_normal((num_rows, size)).astype(np.float32)
    video_ids = iter(dict.fromkeys(video_ids))
    with h5py.File(path, 'w', libver='latest') as file:
        first = next(video_ids)
        if feature_key is None:
            file[first] = features
        else:
            file[f'{first}/{feature_key}'] = features
        for video_id in video_ids:
            file[video_id] = h5py.SoftLink(f'/{first}')
