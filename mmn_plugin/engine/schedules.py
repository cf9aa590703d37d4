"""Hooks that schedule a method's parts by epoch: freezing, negatives, hard batches, stages."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.registry import HOOKS
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmn_plugin.datasets import SimilarVideoSampler
from mmn_plugin.errors import InputError

from .dist import bare_model, isolated_random_state
from .resume import SeededDataset


@HOOKS.register_module()
class FreezeLanguageModelHook(Hook):
    """Keep ``text_encoder.bert`` frozen through an epoch, then train it.

    Frozen, its parameters get no gradient: they are outside the norm and its clipping, see no
    weight decay and have no optimizer state; its dropout stays active. The state follows from the
    epoch alone, so a resumed run is in the right one.

    It freezes after the optimizer is built and after the model is wrapped: MMEngine's optimizer
    constructor leaves out parameters that are frozen when it is called, and
    DistributedDataParallel never synchronizes parameters that are frozen when it wraps (ranks
    would drift apart silently after unfreezing). The wrapper therefore needs
    ``find_unused_parameters=True``, which this hook checks.

    Args:
        through_epoch (int): Last frozen epoch, counted from 1; 0 never freezes.
    """

    priority = 'NORMAL'

    def __init__(self, through_epoch: int):
        self.through_epoch = through_epoch

    def before_train(self, runner) -> None:
        """Check that the distributed wrapper can cope with parameters without gradient.

        Raises:
            ValueError: If it would fail in the middle of an epoch, or the encoder itself keeps the
                language model frozen.
        """
        language_model = bare_model(runner).text_encoder.bert
        if not any(parameter.requires_grad for parameter in language_model.parameters()):
            raise InputError(
                'model.text_encoder keeps the language model frozen in every epoch (frozen=True): '
                'leave FreezeLanguageModelHook out of the config, or frozen'
            )
        if (
            self.through_epoch > 0
            and is_model_wrapper(runner.model)
            and getattr(runner.model, 'find_unused_parameters', True) is False
        ):
            raise InputError(
                'FreezeLanguageModelHook freezes parameters after the model is '
                'wrapped: set model_wrapper_cfg=dict('
                "type='MMDistributedDataParallel', find_unused_parameters=True)"
            )

    def before_train_epoch(self, runner) -> None:
        """Freeze or unfreeze for the epoch that begins."""
        model = bare_model(runner)
        frozen = runner.epoch + 1 <= self.through_epoch
        if self.freeze(model, frozen):
            state = 'frozen' if frozen else 'trained'
            print_log(f'language model is {state} from epoch {runner.epoch + 1}', 'current')

    @staticmethod
    def freeze(model, frozen: bool) -> bool:
        """Set whether the language model is trained; tells whether that changed anything."""
        changed = False
        for parameter in model.text_encoder.bert.parameters():
            if parameter.requires_grad == frozen:
                parameter.requires_grad_(not frozen)
                parameter.grad = None
                changed = True
        return changed


@HOOKS.register_module()
class CrossVideoNegativeHook(Hook):
    """Schedule of the losses whose negatives come from other videos.

    Through epoch ``full_through_epoch`` the contrastive losses have their full weight; after it
    they are multiplied by ``late_factor`` and the IoU loss decides (MMN's late stage). Where the
    negatives come from is the head's setting: `NegativeSource`.

    Args:
        full_through_epoch (int): Last epoch, counted from 1, of the full weight (``only_iou`` of
            the published settings).
        late_factor (float): Factor afterwards. Defaults to 0.01, as published.
        from_epoch (int): First epoch, counted from 1, of the head's ``negatives.scope``; before it
            negatives are those of the device's batch. Defaults to 1.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, full_through_epoch: int, late_factor: float = 0.01, from_epoch: int = 1):
        if full_through_epoch < 0 or late_factor < 0 or from_epoch < 1:
            raise InputError(
                f'CrossVideoNegativeHook: full_through_epoch={full_through_epoch}, '
                f'late_factor={late_factor}, from_epoch={from_epoch}: epochs count from 1 '
                '(full_through_epoch=0: none), and a factor is at least 0'
            )
        self.full_through_epoch = full_through_epoch
        self.late_factor = late_factor
        self.from_epoch = from_epoch

    def before_train(self, runner) -> None:
        """Check what surrounds the hook, and warn of options that are hardly meant.

        Raises:
            ValueError: If ``sync_bn`` is set for a training on CPUs, or ``from_epoch`` would have
                no effect.
        """
        layers = [m for m in runner.model.modules() if isinstance(m, nn.SyncBatchNorm)]
        if get_world_size() > 1 and any(layer.weight.device.type == 'cpu' for layer in layers):
            raise InputError(
                "sync_bn='torch' needs GPUs, since PyTorch has no SyncBatchNorm for "
                'the CPU: leave sync_bn out of the config; BatchNorm then takes its '
                'statistics per process'
            )
        source = bare_model(runner).head.negatives
        if self.from_epoch > 1 and source.scope == 'local':
            raise InputError(
                f'CrossVideoNegativeHook: from_epoch={self.from_epoch}: it acts on negatives from '
                "outside the device's batch, of which model.head.negatives has none"
            )
        if self.from_epoch > runner.max_epochs:
            runner.logger.warning(
                f'CrossVideoNegativeHook: from_epoch={self.from_epoch} is after the last '
                f'epoch ({runner.max_epochs}), so negatives stay local'
            )

    def before_train_epoch(self, runner) -> None:
        """Set the factor, and whether the head's wider negatives are in force."""
        head, epoch = bare_model(runner).head, runner.epoch + 1
        head.contrastive_factor = self.factor(epoch)
        head.negatives.wide = epoch >= self.from_epoch

    def factor(self, epoch: int) -> float:
        """Factor on the contrastive losses in an epoch counted from 1."""
        return 1.0 if epoch <= self.full_through_epoch else self.late_factor


@HOOKS.register_module()
class ContrastStageHook(Hook):
    """Begin the stages from coarse to fine, once scores mean something.

    What is active follows from the epoch alone, so a resumed run is in the right stage.

    Args:
        from_epochs (Sequence[int]): First epoch, counted from 1, of each stage, never falling.

    Raises:
        ValueError: If the epochs fall or one is below 1.
    """

    def __init__(self, from_epochs: Sequence[int]):
        if list(from_epochs) != sorted(from_epochs) or min(from_epochs, default=1) < 1:
            raise InputError(
                f'ContrastStageHook.from_epochs={list(from_epochs)}: epochs count '
                'from 1, and no stage begins before the one it refines'
            )
        self.from_epochs = tuple(from_epochs)

    def before_train(self, runner) -> None:
        """Check that there is an epoch for every stage.

        Raises:
            ValueError: If there is not.
        """
        windows = bare_model(runner).head.windows
        if len(windows) != len(self.from_epochs):
            raise InputError(
                f'ContrastStageHook.from_epochs={list(self.from_epochs)} has '
                f'{len(self.from_epochs)} entries, but model.head.windows='
                f'{list(windows)} has {len(windows)}: give an epoch for every stage'
            )

    def before_train_epoch(self, runner) -> None:
        """Set how many stages train in the epoch that begins."""
        begun = [first for first in self.from_epochs if runner.epoch + 1 >= first]
        bare_model(runner).head.active_stages = len(begun)


@HOOKS.register_module()
class SimilarVideoHook(Hook):
    """Embed all videos of the training for `SimilarVideoSampler`, shared out among processes.

    A video's vector is the mean of its pooled features (with features of a dual encoder, of its
    space), made once; or, by the model as it is, the mean of its contrastive embeddings, made again
    every ``interval`` epochs: that costs a forward pass of all videos. The model's vectors are part
    of the run's state, so a resumed epoch goes on in its order.

    Args:
        by (str): ``'features'`` or ``'model'``. Defaults to ``'features'``.
        interval (int): Epochs after which the model's vectors are made again. Defaults to 1.
        batch_size (int): Videos that a process embeds at a time. Defaults to 32.

    Attributes:
        vectors (Tensor | None): (N, C) unit vectors of the training's N videos, on the CPU; None
            before the first epoch.
        epoch (int): Epoch, counted from 0, in which they were made.

    Raises:
        ValueError: If a value is out of range, or would have no effect.
    """

    def __init__(self, by: str = 'features', interval: int = 1, batch_size: int = 32):
        if by not in ('features', 'model') or interval < 1 or batch_size < 1:
            raise InputError(
                f'SimilarVideoHook: by={by!r}, interval={interval}, batch_size={batch_size}; give '
                "'features' or 'model', and numbers from 1"
            )
        if by == 'features' and interval > 1:
            raise InputError(
                f"SimilarVideoHook: interval={interval} has no effect with by='features', which "
                "never change: leave it out, or set by='model'"
            )
        self.by, self.interval, self.batch_size = by, interval, batch_size
        self.vectors: Tensor | None = None
        self.epoch = 0

    def before_train(self, runner) -> None:
        """Check that the training's sampler has a use for vectors, and its groups fit the steps.

        Raises:
            ValueError: If it has not, or groups begin in the middle of a step.
        """
        sampler = runner.train_dataloader.sampler
        if not isinstance(sampler, SimilarVideoSampler):
            raise InputError(
                'SimilarVideoHook is for train_dataloader.sampler=dict(_delete_=True, '
                f"type='SimilarVideoSampler', group_size=...), not {type(sampler).__name__}"
            )
        step = runner.train_dataloader.batch_size * get_world_size()
        if step % sampler.group_size and sampler.group_size % step:
            raise InputError(
                f'SimilarVideoSampler.group_size={sampler.group_size}, but a step has {step} '
                f'videos, so that groups begin in the middle of steps: set group_size={step}, or a '
                'part or a multiple of it'
            )

    def before_train_epoch(self, runner) -> None:
        """Give the sampler its vectors, new ones where it is time."""
        sampler = runner.train_dataloader.sampler
        due = self.by == 'model' and runner.epoch - self.epoch >= self.interval
        if due or self.vectors is None or len(self.vectors) != len(sampler.dataset):
            self.epoch = runner.epoch
            with isolated_random_state():
                self.vectors = self._embed(runner, sampler)
        sampler.vectors = self.vectors.numpy()

    @torch.no_grad()
    def _embed(self, runner, sampler: SimilarVideoSampler) -> Tensor:
        """Unit vectors (N, C) of all videos, on the CPU."""
        loader, model = runner.train_dataloader, bare_model(runner).eval()  # until the loop's train
        keys = [(index, (sampler.seed, index)) for index in range(len(sampler.dataset))]
        own = keys[get_rank() :: get_world_size()]
        starts = range(0, len(own), self.batch_size)
        batches = DataLoader(
            SeededDataset(sampler.dataset),
            batch_sampler=[own[start : start + self.batch_size] for start in starts],
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
        )
        means = []
        for batch in batches:
            if self.by == 'model':
                data = model.data_preprocessor(batch)
                videos = model.encode_videos(data['inputs'], data['data_samples'])
                rows = [video.embeddings['contrastive'].mean(0) for video in videos]
            else:
                rows = [features.flatten(0, -2).mean(0) for features in batch['inputs']]
            means.append(F.normalize(torch.stack(rows).float(), dim=-1).cpu())
        parts = all_gather_object(torch.cat(means))
        vectors = parts[0].new_empty(len(keys), parts[0].shape[1])
        for rank, part in enumerate(parts):
            vectors[rank :: len(parts)] = part
        return vectors

    def common_state(self) -> dict:
        """The model's vectors, and the epoch in which they were made."""
        if self.by == 'features' or self.vectors is None:
            return {}
        return dict(vectors=self.vectors, epoch=self.epoch)

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned on rank 0."""
        if self.by == 'model':
            self.vectors, self.epoch = state['vectors'].cpu(), state['epoch']
