"""Feature files for annotations whose features are not here."""

import h5py
import numpy as np


def write_random_features(path, video_ids, size, num_rows=64, feature_key=None):
    """Write an HDF5 file in which every video has the same random features (num_rows, size).

    The array is stored once and linked under each video, so that the file stays small.
    """
    features = np.random.default_rng(0).standard_normal((num_rows, size)).astype(np.float32)
    first, *others = dict.fromkeys(video_ids)
    with h5py.File(path, 'w', libver='latest') as file:
        file[first if feature_key is None else f'{first}/{feature_key}'] = features
        for video_id in others:
            file[video_id] = h5py.SoftLink(f'/{first}')
