"""What the tasks that run the whole model have in common."""

from collections.abc import Callable

import torch

from .benchmark_settings import BenchmarkSettings
from .build_model import build_model, share_weights
from .phase_timer import PhaseTimer
from .probes import convolution_probe, product_probe
from .subject import Subject
from .variant import Variant


class ModelTask:
    """One model per variant, run on a made-up batch.

    Args:
        settings (BenchmarkSettings): What to run.

    Attributes:
        split (str): Whose statistics the batch follows.
        training (bool): Whether backward belongs to it.
    """

    split: str
    training: bool

    def __init__(self, settings: BenchmarkSettings):
        self.settings = settings
        for variant in settings.variants:
            variant.check(settings.device)
        env = settings.cfg.get('env_cfg', {})
        torch.backends.cudnn.benchmark = env.get('cudnn_benchmark', False)
        torch.manual_seed(settings.seed)
        self.models = {
            variant: build_model(settings.cfg, variant, settings.device)
            for variant in settings.variants
        }
        share_weights(self.models)
        self.workload = settings.workload(self.split)
        self.grid = next(iter(self.models.values())).grid
        self.work = settings.encoder_work(self.grid)

    def subjects(self) -> list[Subject]:
        """What is timed."""
        raise NotImplementedError

    def step_of(self, variant: Variant) -> Callable[[], None]:
        """One run of a variant, for profiling."""
        raise NotImplementedError

    def probes(self) -> list[Subject]:
        """The machine's peaks, in each precision that a variant uses."""
        settings, neck = self.settings, self.settings.cfg.model.neck
        dtypes = dict.fromkeys(variant.dtype for variant in settings.variants)
        products = [product_probe(dtype, settings.device) for dtype in dtypes]
        return products + [
            convolution_probe(
                dtype,
                settings.device,
                settings.batch_size,
                neck.channels,
                neck.kernel_size,
                self.grid.num_clips,
                self.training,
            )
            for dtype in dtypes
        ]

    def about(self, variant: Variant, videos: int) -> dict:
        """Operations of the encoder's convolutions: those that are computed, and all."""
        cells = 'train' if self.training else 'test'
        dense = self.work.flops(videos, 'dense', self.training)
        needed = self.work.flops(videos, cells, self.training)
        return dict(
            variant=str(variant),
            dtype=variant.dtype,
            dense_flops=dense,
            encoder_flops=dense if variant.conv_mode == 'dense' else needed,
        )

    def watch(self, timer: PhaseTimer, variant: Variant) -> None:
        """Set up the phases of a step; data, text, map and encoder are those of every task."""
        model = self.models[variant]
        timer.watch_module(model.data_preprocessor, 'data')
        timer.watch_module(model.text_encoder, 'text')
        timer.watch_module(model.backbone, 'map')
        timer.watch_module(model.neck.moment_map, 'map')
        timer.watch_module(
            model.neck.encoder, 'encoder', 'encoder backward' if self.training else None
        )

    def profile(self, variant: Variant, steps: int = 1) -> dict[str, float]:
        """Seconds per phase of one step, ``total`` among them; means over some steps."""
        with PhaseTimer(self.settings.device) as timer:
            self.watch(timer, variant)
            step = self.step_of(variant)
            if variant.compiled:  # hooks make it compile again
                step()
                timer.seconds.clear()
            for _ in range(steps):
                with timer.phase('total'):
                    step()
        return {name: seconds / steps for name, seconds in timer.seconds.items()}
