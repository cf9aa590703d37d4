"""What a training step takes beside the model: waiting for its batch, and the optimizer."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import torch
from benchmark import Subject, alone, interleave
from made_up_data import offline_config
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from mmn_plugin.config import load_config
from mmn_plugin.engine.resume import resumable_loader
from mmn_plugin.structures.annotations import read_annotations

from .running import shared_folder
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
    return dict(step_seconds=STEP, load=os.getloadavg()[0], rows=rows)


def waiting(config: str, rate: float, folder: Path) -> dict:
    """Seconds that each step waited for its batch, epoch by epoch, and CPU time of a batch."""
    init_default_scope('mmaction')
    cfg = load_config(config)
    set_multi_processing(**cfg.env_cfg.mp_cfg)
    megabytes = write_features(cfg, rate, folder / 'features.h5')
    batches = resumable_loader(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    sampler, waits = batches.batch_sampler, []
    for sampler.epoch in range(EPOCHS):
        waits.append(waits_of_an_epoch(islice(batches, STEPS)))
    used = []
    for items in islice(sampler, STEPS // 4):
        began = time.process_time()
        batches.collate_fn([batches.dataset[item] for item in items])
        used.append(time.process_time() - began)
    return dict(
        workers=batches.num_workers,
        videos=len(items),
        megabytes=megabytes,
        cpu_seconds=float(np.median(used)),
        waits=waits,
    )


def waits_of_an_epoch(batches: Iterator[dict]) -> list[float]:
    """Seconds for which each of the steps, which sleep, waited.

    A thread receives the next batch and copies it meanwhile, as PyTorch's does that pins memory.
    """

    def receive():
        return next(({**batch, 'inputs': batch['inputs'].clone()} for batch in batches), None)

    waits = []
    with ThreadPoolExecutor(1) as pool:
        began, coming = time.perf_counter(), pool.submit(receive)
        while coming.result() is not None:
            waits.append(round(time.perf_counter() - began, 5))
            coming = pool.submit(receive)
            time.sleep(STEP)
            began = time.perf_counter()
    return waits


def render_loader(result: dict) -> str:
    """A row per config; the first epoch, in which the workers start, is left out."""
    rows = []
    for row in result['rows']:
        epochs = row['waits'][1:]
        waited, steps = sum(map(sum, epochs)), sum(map(len, epochs))
        rest = waited - sum(epoch[0] for epoch in epochs)
        total = waited + steps * result['step_seconds']
        rows.append(
            [
                f'{row["config"]}, {row["videos"]} videos',
                f'{row["megabytes"]:.1f} MB',
                f'{1e3 * row["cpu_seconds"]:.0f} ms',
                f'{1e3 * row["cpu_seconds"] / row["workers"]:.0f} ms',
                f'{waited / total:.1%}',
                f'{rest / total:.1%}',
            ]
        )
    header = ['batch', 'features', 'CPU time', 'by worker', 'waiting', "without an epoch's first"]
    return f'{table(header, rows)}\n\nLoad of the machine at the end: {result["load"]:.1f}.'


def write_features(cfg: Config, rate: float, path: Path) -> float:
    """Features of all videos of the training split; MB that a batch takes from the file."""
    dataset = cfg.train_dataloader.dataset
    source = shared_folder('data') / 'annotations' / Path(dataset.data_root).name
    dataset.data_root, dataset.data_prefix.features = str(source), str(path)
    videos = read_annotations(source / dataset.ann_file)
    rows = np.array([max(1, round(video.duration * rate)) for video in videos])
    lengths = np.unique(np.quantile(rows, np.linspace(0, 1, LENGTHS)).astype(int))
    nearest = lengths[np.abs(rows[:, None] - lengths).argmin(1)]
    rng, size = np.random.default_rng(0), cfg.model.backbone.in_channels
    key = dataset.get('feature_key')
    with h5py.File(path, 'w') as file:
        arrays = {
            n: file.create_dataset(f'rows/{n}', data=rng.random((n, size), np.float32))
            for n in lengths.tolist()
        }
        for video, length in zip(videos, nearest.tolist(), strict=True):  # hard links
            file['/'.join(filter(None, (video.video_id, key)))] = arrays[length]
    return float(nearest.mean() * size * 4e-6 * cfg.train_dataloader.batch_size)


# Arguments of the optimizer, and of its constructor, that are the config's unless named here.
WAYS = {
    "MMEngine's constructor, a group per tensor": ('DefaultOptimWrapperConstructor', {}),
    'a group per setting': ('GroupedOptimWrapperConstructor', dict(fused=False)),
    'a group per setting, fused (as in the configs)': ('GroupedOptimWrapperConstructor', {}),
}
OPTIMIZED = {'Shapes': 'configs/mmn_shapes.py', 'Charades-STA': 'configs/mmn_charades.py'}


def optimizer(repeats: int) -> dict:
    """The optimizer's step alone, on one CPU thread, its ways in turns."""
    return dict(
        load=os.getloadavg()[0],
        rows=[
            row
            for name, config in OPTIMIZED.items()
            for row in alone(optimizer_steps, name, config, repeats)
        ],
    )


def optimizer_steps(name: str, config: str, repeats: int) -> list[dict]:
    """A row for each way, with the language model trained."""
    torch.set_num_threads(1)
    init_default_scope('mmaction')
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg = offline_config(load_config(config))
    model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn_like(parameter)
    subjects, counts = [], dict(tensors=len([*model.parameters()]))
    for way, (constructor, settings) in WAYS.items():
        wrapper = cfg.optim_wrapper.to_dict() | dict(constructor=constructor)
        wrapper['optimizer'] |= settings
        step = build_optim_wrapper(model, wrapper).optimizer
        counts = dict(counts, groups=len(step.param_groups))
        subjects.append(Subject(way, step.step, name, counts=counts))
    interleave(subjects, repeats)
    return [subject.row(subjects[0]) for subject in subjects]


def render_optimizer(result: dict) -> str:
    """A row per config and way."""
    rows = [
        [
            f'{row["group"]}, {row["tensors"]} tensors',
            row['name'],
            row['groups'],
            f'{1e3 * row["seconds"]:.2f} ms',
            f'{row["ratio"]:.1f}x',
        ]
        for row in result['rows']
    ]
    header = ['config', 'optimizer', 'groups', 'step', 'faster']
    return f'{table(header, rows)}\n\nLoad of the machine at the start: {result["load"]:.1f}.'
