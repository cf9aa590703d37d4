"""The data loader."""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner

from mmn_plugin.datasets import write_random_features

from .benchmark_settings import BenchmarkSettings
from .interleave import median, timed
from .quietly import quietly
from .subject import Subject
from .train_task import TrainTask

CACHES = (None, 'memory', 'folder')
BATCHES = 32  # four times as many as 4 workers keep ready
SLEEP = 20.0  # most seconds of steps that are slept through


class DataTask:
    """Time per batch of the training data loader, and how long a training step waits for it.

    Where annotations or features are not at hand, both are made up in a temporary folder. All
    rows read from the page cache of the operating system, for a round before them read the same.

    Args:
        settings (BenchmarkSettings): What to run; of the variants the first is the training step.
    """

    def __init__(self, settings: BenchmarkSettings):
        self.settings = settings
        self._folder = tempfile.TemporaryDirectory()
        self.source, dataset = self.dataset()
        self.loaders = {cache: self.loader(dataset, cache) for cache in CACHES}
        self.step_seconds = settings.step_seconds

    def dataset(self) -> tuple[str, dict]:
        """Where the data come from, and the dataset's config."""
        dataset = self.settings.cfg.train_dataloader.dataset.copy()
        root = Path(dataset.get('data_root', ''))
        features = dataset.get('data_prefix', {}).get('features')
        if (
            isinstance(features, str)
            and (root / features).exists()
            and (root / dataset.ann_file).is_file()
        ):
            return str(root), dataset
        root = Path(self._folder.name)
        self.make_up(root)
        keys = dict(
            data_root=str(root),
            ann_file='train.json',
            data_prefix=dict(features='features.h5'),
            feature_key=None,
        )
        return 'made up', {**dataset, **keys}

    def make_up(self, root: Path) -> None:
        """Annotations and features of as many videos as a round reads."""
        workload = self.settings.workload('train')
        rng = np.random.default_rng(self.settings.seed)
        counts = workload.statistics.sentences_of(BATCHES * self.settings.batch_size)
        samples = [workload.sample(f'v{i}', count, rng) for i, count in enumerate(counts)]
        (root / 'train.json').write_text(
            json.dumps(
                {
                    sample.video_id: dict(
                        duration=sample.duration,
                        sentences=sample.sentences,
                        timestamps=sample.gt_instances.moments.clamp(max=sample.duration).tolist(),
                    )
                    for sample in samples
                }
            )
        )
        rows = self.settings.feature_rows or 4 * workload.num_segments
        write_random_features(
            root / 'features.h5',
            [sample.video_id for sample in samples],
            workload.feature_size,
            rows,
        )

    def loader(self, dataset: dict, cache: str | None):
        """A data loader over so many batches, its workers kept."""
        folder = str(Path(self._folder.name, 'cache')) if cache == 'folder' else cache
        workers = self.settings.workers
        collate = self.settings.cfg.train_dataloader.get('collate_fn', dict(type='stack_videos'))
        with quietly():
            return Runner.build_dataloader(
                dict(
                    batch_size=self.settings.batch_size,
                    num_workers=workers,
                    persistent_workers=workers > 0,
                    pin_memory=torch.device(self.settings.device).type != 'cpu',
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    collate_fn=collate,
                    dataset={
                        **dataset,
                        'feature_cache': folder,
                        'indices': BATCHES * self.settings.batch_size,
                    },
                ),
                seed=self.settings.seed,
            )

    def subjects(self) -> list[Subject]:
        """A round of the data loader with each cache, as fast as it goes."""
        rows = []
        for cache, loader in self.loaders.items():
            videos = len(loader.dataset)
            rows.append(
                Subject(
                    f'feature_cache={cache or "None"}',
                    lambda ldr=loader: list(ldr),
                    f'data loader, {self.settings.workers} workers',
                    videos,
                    about=dict(batches=len(loader)),
                )
            )
        return rows

    def probes(self) -> list[Subject]:
        """None: nothing is computed."""
        return []

    def measure_step(self) -> float:
        """Seconds of a training step, the first variant's, unless they are given."""
        if self.step_seconds is None:
            subject = TrainTask(self.settings).subjects()[0]
            seconds = []
            for _ in range(3):
                seconds.append(timed(subject.run, self.settings.device))
            self.step_seconds = median(seconds[1:])
        return self.step_seconds

    def waiting(self, cache: str | None, step_seconds: float) -> float:
        """Share of a training's time that is spent waiting for data, after the first batch.

        The step itself is slept through: the workers have the processor, as beside a GPU.
        """
        batches = iter(self.loaders[cache])
        next(batches)
        began, waited = time.perf_counter(), 0.0
        for _ in range(max(1, min(BATCHES, int(SLEEP / step_seconds)))):
            time.sleep(step_seconds)
            asked = time.perf_counter()
            if next(batches, None) is None:
                break
            waited += time.perf_counter() - asked
        return waited / (time.perf_counter() - began)
