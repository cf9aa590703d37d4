"""From score maps to figures."""

import numpy as np
import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.evaluation import GroundingMetric
from mmn_plugin.models import rank
from mmn_plugin.structures import GroundingDataSample, MomentGrid

from .benchmark_settings import BenchmarkSettings
from .phase_timer import PhaseTimer
from .quietly import quietly
from .subject import Subject


class EvalTask:
    """NMS and recall of random score maps, as many as the test split has sentences.

    Through the head and the metric a batch at a time, as a test runs them; and NMS of all
    sentences in one call, without the metric, for comparison.

    Args:
        settings (BenchmarkSettings): What to run.

    Raises:
        ValueError: If the model does not score the moments of a grid.
    """

    def __init__(self, settings: BenchmarkSettings):
        self.settings = settings
        if 'grid' not in settings.cfg.model:
            raise ValueError(
                f'the task eval is the NMS of moments, and {settings.cfg.model.type} '
                'has none: give --task test, which ranks too'
            )
        self.grid = MomentGrid(**settings.cfg.model.grid)
        self.head = MODELS.build(settings.cfg.model.head, default_args=dict(grid=self.grid))
        workload = settings.workload('test')
        rng = np.random.default_rng(settings.seed)
        self.samples = [
            workload.sample(f'v{i}', int(count), rng)
            for i, count in enumerate(workload.statistics.sentences)
        ]
        generator = torch.Generator().manual_seed(settings.seed)
        count = int(workload.statistics.sentences.sum())
        scores = torch.rand(count, self.grid.num_moments, generator=generator)
        self.scores = scores.to(settings.device)  # (S, P)

    def subjects(self) -> list[Subject]:
        """The whole evaluation, and NMS alone."""
        size = self.settings.batch_size
        counts = len(self.samples), len(self.scores)
        return [
            Subject(f'evaluation, {size} videos at a time', self.evaluate, 'evaluation', *counts),
            Subject('NMS, all sentences at once', self.nms_alone, 'NMS', *counts),
        ]

    def evaluate(self) -> dict[str, float]:
        """Figures of all sentences."""
        metric = build_metric(self.settings.cfg.test_evaluator)
        for samples, scores, video in self.batches():
            ranked = self.rank(scores, video, samples)
            self.process(metric, ranked)
        return self.compute(metric)

    def rank(
        self, scores: Tensor, video: Tensor, samples: list[GroundingDataSample]
    ) -> list[GroundingDataSample]:
        """NMS; the best moments go to the samples."""
        return self.head.rank(scores, video, samples)

    def process(self, metric: GroundingMetric, samples: list[GroundingDataSample]) -> None:
        """Hand results to the metric, as MMEngine's evaluator does."""
        metric.process(None, [sample.to_dict() for sample in samples])

    def compute(self, metric: GroundingMetric) -> dict[str, float]:
        """Recall."""
        with quietly():
            return metric.compute_metrics(metric.results)

    def batches(self):
        """Samples, (S, P) scores, and (S,) places of the sentences' videos, batch by batch."""
        first, size = 0, self.settings.batch_size
        for begin in range(0, len(self.samples), size):
            samples = self.samples[begin : begin + size]
            counts = torch.tensor([len(sample.sentences) for sample in samples])
            video = torch.arange(len(samples)).repeat_interleave(counts)
            scores = self.scores[first : first + len(video)]
            yield samples, scores, video.to(scores.device)
            first += len(video)

    def nms_alone(self) -> None:
        """The best moments of all sentences in one call, on the CPU."""
        durations = torch.tensor([sample.duration for sample in self.samples])
        counts = torch.tensor([len(sample.sentences) for sample in self.samples])
        video = torch.arange(len(counts)).repeat_interleave(counts).to(self.scores.device)
        spans = self.grid.spans(durations.to(self.scores.device))
        rank(spans, self.scores, self.head.nms_threshold, self.head.top_n, video)

    def profile(self) -> dict[str, float]:
        """Seconds per phase."""
        with PhaseTimer(self.settings.device) as timer:
            for method, name in (('rank', 'NMS'), ('process', 'collecting'), ('compute', 'recall')):
                timer.watch_method(self, method, name)
            with timer.phase('total'):
                self.evaluate()
        return dict(timer.seconds)

    def probes(self) -> list[Subject]:
        """None: there are no convolutions."""
        return []


def build_metric(evaluator: dict | list) -> GroundingMetric:
    """The config's grounding metric.

    Raises:
        ValueError: If it has none.
    """
    for settings in evaluator if isinstance(evaluator, list) else [evaluator]:
        settings = dict(settings)
        if settings.pop('type') == 'GroundingMetric':
            settings.pop('subsets', None)  # of real videos
            return GroundingMetric(**settings)
    raise ValueError('test_evaluator of the config has no GroundingMetric')
