"""One step of training."""

from collections.abc import Callable

import torch
from mmengine.optim import build_optim_wrapper

from mmn_plugin.engine import FreezeLanguageModelHook

from .benchmark_settings import BenchmarkSettings
from .model_task import ModelTask
from .phase_timer import PhaseTimer
from .quietly import quietly
from .subject import Subject
from .variant import Variant


class TrainTask(ModelTask):
    """Preprocessing, forward, backward, clipping and the optimiser's step, as MMEngine does them.

    Models of one memory format share weights, gradients and optimiser.

    Args:
        settings (BenchmarkSettings): What to run.
    """

    split = 'train'
    training = True

    def __init__(self, settings: BenchmarkSettings):
        super().__init__(settings)
        self.batch = self.workload.batch(settings.batch_size)
        wrappers = {}
        for variant, model in self.models.items():
            FreezeLanguageModelHook.freeze(model, False)
            if variant.channels_last not in wrappers:
                wrappers[variant.channels_last] = build_optimiser(settings, model)
        for model in self.models.values():
            FreezeLanguageModelHook.freeze(model, settings.frozen)
            model.train()
        self.optimisers = {v: wrappers[v.channels_last] for v in self.models}

    def subjects(self) -> list[Subject]:
        """A step of each variant."""
        videos = len(self.batch['inputs'])
        sentences = sum(len(s.sentences) for s in self.batch['data_samples'])
        return [
            Subject(
                str(variant),
                self.step_of(variant),
                'training step',
                videos,
                sentences,
                self.about(variant, videos),
            )
            for variant in self.models
        ]

    def step_of(self, variant: Variant) -> Callable[[], None]:
        """A step of one variant."""
        return training_step(
            self.models[variant],
            self.optimisers[variant],
            variant,
            self.batch,
            self.settings.device,
        )

    def watch(self, timer: PhaseTimer, variant: Variant) -> None:
        """Phases of a training step."""
        super().watch(timer, variant)
        optimiser = self.optimisers[variant]
        timer.watch_method(self.models[variant].head, 'loss', 'loss')
        timer.watch_method(optimiser, 'backward', 'backward')
        timer.watch_method(optimiser, 'step', 'optimiser')
        timer.watch_method(optimiser, 'zero_grad', 'optimiser')

    @classmethod
    def prepare(cls, settings: BenchmarkSettings, variant: Variant) -> Callable[[], None]:
        """A step for measuring memory: weights, gradients and optimiser state exist before it."""
        settings.variants = [variant]
        task = cls(settings)
        model, optimiser = task.models[variant], task.optimisers[variant]
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.optimizer.step()
        return training_step(
            model, optimiser, variant, task.batch, settings.device, keep_gradients=True
        )


def build_optimiser(settings: BenchmarkSettings, model):
    """The config's optimiser; precision is the variant's business."""
    cfg = settings.cfg.optim_wrapper.copy()
    cfg.type = 'OptimWrapper'
    for key in ('accumulative_counts', 'loss_scale', 'dtype'):
        cfg.pop(key, None)
    with quietly():  # MMEngine lists every parameter
        return build_optim_wrapper(model, cfg)


def training_step(
    model, optimiser, variant: Variant, batch: dict, device: str, keep_gradients: bool = False
) -> Callable[[], None]:
    """What `mmengine.model.BaseModel.train_step` does, in a variant's precision.

    With ``keep_gradients`` the step sets gradients to zero rather than free them.
    """

    def step() -> None:
        with variant.backends():
            with optimiser.optim_context(model), variant.autocast(device):
                data = model.data_preprocessor(batch, True)
                losses = model(**data, mode='loss')
            total, _ = model.parse_losses(losses)
            optimiser.update_params(total, zero_kwargs=dict(set_to_none=not keep_gradients))

    return step
