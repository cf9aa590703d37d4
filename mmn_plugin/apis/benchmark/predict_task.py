"""Prediction: from features and sentences to ranked moments."""

from collections.abc import Callable

import torch

from .benchmark_settings import BenchmarkSettings
from .model_task import ModelTask
from .phase_timer import PhaseTimer
from .subject import Subject
from .variant import Variant


class PredictTask(ModelTask):
    """Preprocessing, embedding and ranking, one video at a time and a batch at a time.

    Args:
        settings (BenchmarkSettings): What to run.
    """

    split = 'test'
    training = False

    def __init__(self, settings: BenchmarkSettings):
        super().__init__(settings)
        sizes = sorted({1, settings.batch_size})
        self.batches = {size: self.workload.batch(size) for size in sizes}
        for model in self.models.values():
            model.eval()

    def subjects(self) -> list[Subject]:
        """A batch of each size through each variant."""
        result = []
        for size, batch in self.batches.items():
            sentences = sum(len(sample.sentences) for sample in batch['data_samples'])
            result += [
                Subject(
                    str(variant),
                    self.step_of(variant, size),
                    group(size),
                    size,
                    sentences,
                    self.about(variant, size),
                )
                for variant in self.models
            ]
        return result

    def step_of(self, variant: Variant, size: int | None = None) -> Callable[[], None]:
        """Prediction of a batch of a size, by default the larger."""
        model, device = self.models[variant], self.settings.device
        batch = self.batches[size or max(self.batches)]

        @torch.no_grad()
        def step() -> None:
            with variant.backends(), variant.autocast(device):
                model.test_step(batch)

        return step

    def watch(self, timer: PhaseTimer, variant: Variant) -> None:
        """Phases of a prediction."""
        super().watch(timer, variant)
        timer.watch_method(self.models[variant].head, 'predict', 'ranking')

    @classmethod
    def prepare(cls, settings: BenchmarkSettings, variant: Variant) -> Callable[[], None]:
        """A prediction for measuring memory."""
        settings.variants = [variant]
        return cls(settings).step_of(variant)


def group(size: int) -> str:
    """Heading of the rows of a batch size."""
    return 'prediction, 1 video' if size == 1 else f'prediction, {size} videos'
