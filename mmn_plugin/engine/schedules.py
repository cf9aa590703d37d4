"""Hooks that schedule a method's parts by epoch: freezing, negatives, stages."""

from collections.abc import Sequence

from mmaction.registry import HOOKS
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from mmn_plugin.errors import InputError
from mmn_plugin.models import NegativeSource

from .dist import bare_model


@HOOKS.register_module()
class FreezeLanguageModelHook(Hook):
    """Keep ``text_encoder.bert`` frozen through an epoch, then train it.

    Frozen, its parameters get no gradient: they are outside the norm and its clipping, see no
    weight decay and have no optimiser state; its dropout stays active. The state follows from the
    epoch alone, so a resumed run is in the right one.

    It freezes after the optimiser is built and after the model is wrapped: MMEngine's optimiser
    constructor leaves out parameters that are frozen when it is called, and
    DistributedDataParallel never synchronises parameters that are frozen when it wraps (ranks
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
            ValueError: If it would fail in the middle of an epoch.
        """
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
    """Source and schedule of the losses whose negatives come from other videos.

    Schedule: through epoch ``full_through_epoch`` the contrastive losses have their full weight;
    after it they are multiplied by ``late_factor`` and the IoU loss decides (MMN's late stage).

    Source: the videos of the batch on this device, as published (``scope='local'``), or the
    videos of all devices (``'global'``), and, with ``queue_size``, also those of the last so many
    videos. What counts as the same video is decided by its id, wherever its copy comes from: on
    another rank, or in the queue from an earlier epoch. Its sentences are negatives unless they
    overlap, its moments unless they are near the ground truth, as within one video.

    - ``'global'``: W ranks of b videos train as one process with W * b videos does (BatchNorm
      apart): every loss, the IoU loss too, is a mean over all ranks' sentences, and embeddings
      hand their gradient back to the rank that owns them; `Negatives` derives the scale. The
      logged losses are those means, the same on all ranks.
    - ``queue_size``: a memory bank of detached embeddings on the model's device, K * P * J floats
      in every process. A batch enters it after its own step, or not at all if the train
      loop skips that. With ``'global'`` it holds all ranks' videos and is the same on each; with
      ``'local'`` each rank has its own. Its embeddings are as old as the bank is long, so it
      suits the later epochs: see ``from_epoch``.
    - Gradient accumulation: negatives are those of the micro-batch (of all ranks, if global) and
      of the queue, which the micro-batches before it have entered; never of the accumulated batch.
    - BatchNorm's statistics are per rank whatever the scope. ``sync_bn='torch'`` in the config
      takes them over all ranks (on GPUs; PyTorch has no SyncBatchNorm for the CPU).

    The bank is written beside the checkpoints that a run resumes from: each rank its
    own, or rank 0 the common one.

    Args:
        full_through_epoch (int): Last epoch, counted from 1, of the full weight (``only_iou`` of
            the published settings).
        late_factor (float): Factor afterwards. Defaults to 0.01, as published.
        scope (str): ``'local'`` or ``'global'``. Defaults to ``'local'``, as published.
        queue_size (int): Videos in the memory bank (K); 0 means none. Defaults to 0.
        from_epoch (int): First epoch, counted from 1, of ``scope`` and ``queue_size``; before it
            negatives are those of the device's batch. The queue begins to fill there. Defaults
            to 1.
        weight (float): Weight of the negatives from outside the device's batch: each adds
            ``weight * exp(similarity / temperature)`` to a denominator. Defaults to 1, like any
            other negative; with another value a sentence's loss depends on which rank it is on.
        exclude_same_text (bool): A sentence of another video with the same text, but for case,
            punctuation and white space, is no negative, and neither are the moments of that video
            near the sentence's ground truth. Defaults to False, as published.

    Raises:
        ValueError: If a value is out of range, or would have no effect.
    """

    def __init__(
        self,
        full_through_epoch: int,
        late_factor: float = 0.01,
        scope: str = 'local',
        queue_size: int = 0,
        from_epoch: int = 1,
        weight: float = 1.0,
        exclude_same_text: bool = False,
    ):
        self._check(
            full_through_epoch >= 0,
            f'full_through_epoch={full_through_epoch}',
            'epochs count from 1; 0 means none',
        )
        self._check(late_factor >= 0, f'late_factor={late_factor}', 'give a factor of at least 0')
        self._check(scope in ('local', 'global'), f'scope={scope!r}', "give 'local' or 'global'")
        self._check(
            isinstance(queue_size, int) and queue_size >= 0,
            f'queue_size={queue_size}',
            'give a number of videos; 0 means no queue',
        )
        self._check(from_epoch >= 1, f'from_epoch={from_epoch}', 'epochs count from 1')
        self._check(
            0 < weight < float('inf'),
            f'weight={weight}',
            "give a factor above 0; without such negatives: scope='local', queue_size=0",
        )
        if scope == 'local' and not queue_size:
            for name, value in dict(from_epoch=from_epoch, weight=weight).items():
                self._check(
                    value == 1,
                    f'{name}={value}',
                    'it acts on negatives from outside the '
                    "device's batch, of which scope='local', queue_size=0 has none",
                )
        self.full_through_epoch = full_through_epoch
        self.late_factor = late_factor
        self.from_epoch = from_epoch
        self.source = NegativeSource(scope, queue_size, weight, exclude_same_text)
        self._before = NegativeSource(exclude_same_text=exclude_same_text)

    @staticmethod
    def _check(holds: bool, given: str, advice: str) -> None:
        if not holds:
            raise InputError(f'CrossVideoNegativeHook: {given}: {advice}')

    def before_train(self, runner) -> None:
        """Check what surrounds the hook, and warn of options that are hardly meant.

        Raises:
            ValueError: If ``sync_bn`` is set for a training on CPUs.
        """
        self._check_sync_bn(runner.model)
        if self.from_epoch > runner.max_epochs:
            print_log(
                f'CrossVideoNegativeHook: from_epoch={self.from_epoch} is after the last '
                f'epoch ({runner.max_epochs}), so negatives stay local',
                'current',
                30,
            )
        bank, videos = self.source.bank, len(runner.train_dataloader.dataset)
        if bank is not None and bank.size >= videos:
            print_log(
                f'CrossVideoNegativeHook: queue_size={bank.size} reaches over a whole epoch '
                f'of {videos} videos: it will hold old embeddings of the very videos of a '
                'batch',
                'current',
                30,
            )

    @staticmethod
    def _check_sync_bn(model: nn.Module) -> None:
        layers = (module for module in model.modules() if isinstance(module, nn.SyncBatchNorm))
        if get_world_size() > 1 and any(layer.weight.device.type == 'cpu' for layer in layers):
            raise InputError(
                "sync_bn='torch' needs GPUs, since PyTorch has no SyncBatchNorm for "
                'the CPU: leave sync_bn out of the config; BatchNorm then takes its '
                'statistics per process'
            )

    def before_train_epoch(self, runner) -> None:
        """Set factor and source for the epoch that begins."""
        model = bare_model(runner)
        epoch = runner.epoch + 1
        model.head.contrastive_factor = self.factor(epoch)
        model.head.negatives = self.source if epoch >= self.from_epoch else self._before

    def forget_iteration(self) -> None:
        """Keep the batch of an iteration that the train loop skips out of the bank."""
        self.source.forget()

    def factor(self, epoch: int) -> float:
        """Factor on the contrastive losses in an epoch counted from 1."""
        return 1.0 if epoch <= self.full_through_epoch else self.late_factor

    @property
    def _bank_per_rank(self) -> bool:
        return self.source.scope == 'local' and get_world_size() > 1

    def rank_state(self) -> dict:
        """What this rank alone knows: its own bank, if each rank has one."""
        return self._state() if self._bank_per_rank else {}

    def load_rank_state(self, state: dict) -> None:
        """Take over what ``rank_state`` returned on this rank."""
        if self._bank_per_rank:
            self._load(state)

    def common_state(self) -> dict:
        """The bank that all ranks have in common."""
        return {} if self._bank_per_rank else self._state()

    def load_common_state(self, state: dict) -> None:
        """Take over what ``common_state`` returned on rank 0."""
        if not self._bank_per_rank:
            self._load(state)

    def _state(self) -> dict:
        if self.source.bank is None:
            return {}
        self.source.settle()
        return self.source.bank.state_dict()

    def _load(self, state: dict) -> None:
        bank = self.source.bank
        if bank is None:
            return
        if state['video_ids'] and self.source.exclude_same_text and state['texts'] is None:
            print_log(
                "CrossVideoNegativeHook: the checkpoint's memory bank holds no texts, which "
                'exclude_same_text needs; the queue begins empty',
                'current',
                30,
            )
        else:
            bank.load_state_dict(state)


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
        bare_model(runner).head.active_stages = self.active_stages(runner.epoch + 1)

    def active_stages(self, epoch: int) -> int:
        """Stages that have begun in an epoch counted from 1."""
        return sum(epoch >= first for first in self.from_epochs)
