"""How long a training step waits for its batch, with features of real size that are made up."""

import tempfile
import time
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmn_plugin.config import load_config
from mmn_plugin.engine.resume import resumable_loader
from mmn_plugin.structures.annotations import read_annotations

from .running import alone, shared_folder
from .tables import table

STEP = 0.05  # seconds that the model of a step takes here: it sleeps
STEPS = 100  # of an epoch, at most
EPOCHS = 3
LENGTHS = 32  # different numbers of rows in a file, nearest to those of the videos
# Rows of features per second of video, which nobody counted in the published files: frames per
# second over frames per row.
CONFIGS = {
    'TACoS': ('configs/mmn_tacos.py', 29.4 / 16),
    'Charades-STA': ('configs/mmn_charades.py', 24 / 4),
    'ActivityNet Captions': ('configs/mmn_activitynet.py', 30 / 8),
}


def loader() -> dict:
    """Waiting beside a step that sleeps, for each config with its own settings of the loader."""
    rows = []
    for name, (config, rate) in CONFIGS.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(dict(config=name, **alone(waiting, config, rate, Path(folder))))
    return dict(step_seconds=STEP, rows=rows)


def waiting(config: str, rate: float, folder: Path) -> dict:
    """Seconds that each step waited for its batch, epoch by epoch."""
    init_default_scope('mmaction')
    cfg = load_config(config)
    megabytes = write_features(cfg, rate, folder / 'features.h5')
    batches = resumable_loader(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    sampler, waits = batches.batch_sampler, []
    for sampler.epoch in range(EPOCHS):
        began, own = time.perf_counter(), []
        for _ in islice(batches, STEPS):
            own.append(time.perf_counter() - began)
            time.sleep(STEP)
            began = time.perf_counter()
        waits.append(own)
    settings = {name: getattr(batches, name) for name in ('num_workers', 'prefetch_factor')}
    return dict(
        settings,
        videos=batches.batch_sampler.batch_sampler.batch_size,
        megabytes=megabytes,
        waits=waits,
    )


def write_features(cfg: Config, rate: float, path: Path) -> float:
    """Features of all videos of the training split; MB that a batch takes from the file."""
    dataset = cfg.train_dataloader.dataset
    source = shared_folder() / 'data' / 'annotations' / Path(dataset.data_root).name
    dataset.data_root, dataset.data_prefix.features = str(source), str(path)
    videos = read_annotations(source / dataset.ann_file)
    rows = np.array([max(1, round(video.duration * rate)) for video in videos])
    lengths = np.unique(np.quantile(rows, np.linspace(0, 1, LENGTHS)).astype(int))
    nearest = lengths[np.abs(rows[:, None] - lengths).argmin(1)]
    rng, size, key = (
        np.random.default_rng(0),
        cfg.model.backbone.in_channels,
        dataset.get('feature_key'),
    )
    with h5py.File(path, 'w') as file:
        arrays = {
            n: file.create_dataset(f'rows/{n}', data=rng.random((n, size), np.float32))
            for n in lengths.tolist()
        }
        for video, length in zip(videos, nearest.tolist(), strict=True):  # hard links
            file['/'.join(filter(None, (video.video_id, key)))] = arrays[length]
    return float(nearest.mean() * size * 4e-6 * cfg.train_dataloader.batch_size)
