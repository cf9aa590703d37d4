"""The training loop that resumes exactly, and its seeded samples."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmaction.registry import LOOPS
from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from mmn_plugin.errors import InputError
from mmn_plugin.models import NegativeSource

from .checkpointing import SafeCheckpointHook
from .dist import (
    bare_model,
    broadcast_statistics,
    isolated_random_state,
    load_run_state,
    make_gloo_safe,
    save_run_state,
)
from .loss_check import LossCheck
from .preemption import Preempted, PreemptionHook


class ResumableBatchSampler(Sampler):
    """Leave out the batches of an epoch that were trained on before, without loading them.

    Args:
        batch_sampler (Sampler): Yields lists of indices; its order must follow from its seed and
            epoch, as that of MMEngine's ``DefaultSampler`` does.
        rank (int): Rank, part of every sample's seed.

    Attributes:
        first (int): Batches to leave out of the next epoch.
        epoch (int): The epoch, part of every sample's seed.
        seed (int): The run's seed, likewise.
    """

    def __init__(self, batch_sampler, rank: int):
        self.batch_sampler = batch_sampler
        self.rank = rank
        self.first = self.epoch = self.seed = 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        """Yield batches of (index, seed of the sample)."""
        key = (self.seed, self.epoch, self.rank)
        batches = enumerate(self.batch_sampler)
        for place, batch in islice(batches, self.first, None):
            yield [(index, (*key, place, row)) for row, index in enumerate(batch)]


class SeededDataset(Dataset):
    """Load each sample with random numbers of its own.

    A worker's generators run on from sample to sample and from epoch to epoch, so a resumed run,
    whose workers are new, would draw others. Here a sample's numbers follow from the seed that
    comes with its index alone, with any number of workers, and loading in the main process
    draws nothing from the model's generators.

    Args:
        dataset (Dataset): Map-style dataset.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, tuple[int, ...]]):
        """Load sample ``item[0]`` under the seed ``item[1]`` (non-negative integers)."""
        index, key = item
        first, second = np.random.SeedSequence(key).generate_state(2)
        with isolated_random_state():
            random.seed(int(first))
            np.random.seed(first)
            torch.default_generator.manual_seed(int(second))
            return self.dataset[index]


# What of a data loader its copy takes over; the rest follows from dataset and batch sampler.
_LOADER_SETTINGS = (
    'num_workers',
    'collate_fn',
    'pin_memory',
    'timeout',
    'worker_init_fn',
    'multiprocessing_context',
    'generator',
    'prefetch_factor',
    'persistent_workers',
    'in_order',
)


def resumable_loader(loader: DataLoader) -> DataLoader:
    """A copy whose samples are seeded and whose epochs may begin with any batch.

    Args:
        loader (DataLoader): With the batch sampler whose order counts. One without, or of an
            iterable dataset, is returned itself.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        return loader
    settings = {name: getattr(loader, name) for name in _LOADER_SETTINGS if hasattr(loader, name)}
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=ResumableBatchSampler(loader.batch_sampler, get_rank()),
        **settings,
    )


def share_out_step(source: NegativeSource, dataloader: DataLoader | dict) -> None:
    """Give a loader's config this process's share of ``videos_per_step`` as its batch size.

    MMEngine scales the learning rate by the same config.

    Args:
        source (NegativeSource): The head's ``negatives``.
        dataloader (DataLoader | dict): Of the training; changed in place.

    Raises:
        ValueError: If the processes cannot share the videos alike, a loader that is already built
            has another batch size, or a piece has more videos than a batch.
    """
    name, wanted, ranks = 'model.head.negatives', source.videos_per_step, get_world_size()
    is_config = isinstance(dataloader, dict)
    if wanted is not None:
        if wanted % ranks:
            raise InputError(f'{name}.videos_per_step={wanted} is no multiple of {ranks} processes')
        if is_config:
            dataloader['batch_size'] = wanted // ranks
        elif dataloader.batch_size != wanted // ranks:
            raise InputError(
                f'{name}.videos_per_step={wanted} needs batches of {wanted // ranks} videos, and '
                f'the data loader was built with {dataloader.batch_size}: give its config'
            )
        print_log(f'a step has {wanted} videos: {ranks} x {wanted // ranks}', 'current')
    size = dataloader.get('batch_size') if is_config else dataloader.batch_size
    if source.piece is not None and size is not None and source.piece > size:
        raise InputError(
            f'{name}.piece={source.piece} is more than the {size} videos that a process has in a '
            f'step: lower it, or raise {name}.videos_per_step or train_dataloader.batch_size'
        )


def _require_a_step(source: NegativeSource, dataset) -> None:
    """Refuse a training set of fewer videos than a step."""
    wanted = source.videos_per_step
    if wanted is not None and not isinstance(dataset, IterableDataset) and len(dataset) < wanted:
        raise InputError(
            f'model.head.negatives.videos_per_step={wanted} is more than the {len(dataset)} videos '
            'of the training set: lower it'
        )


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose interruption leaves no trace in the weights.

    - A checkpoint may be saved after any iteration; resumed, the epoch goes on with its next batch.
    - A validation that was due when the run ended is made up for, before training goes on.
    - Loading, starting workers and validating draw their random numbers apart from training, so
      that it does not matter how often they happen; a sample's follow from the run's seed, epoch
      and place (see `SeededDataset`).
    - A NaN or infinite loss or gradient stops the run, or its batch is left out (see `LossCheck`).
    - Before an epoch's checkpoint and validation all ranks get rank 0's statistics of BatchNorm.
    - The loader's batch size is that of the head's ``negatives.videos_per_step``, if it has one
      (see `share_out_step`).

    Checkpoints are saved, and brought back, by the run's `SafeCheckpointHook`. Where it has none
    (MMEngine's ``CheckpointHook`` serves too) it is given one, which saves when the run is asked to
    stop (`PreemptionHook`), and at no other time.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of the training.
        max_epochs (int): Epochs.
        bad_loss (str): ``'stop'``, or ``'skip'``: leave a batch with a NaN or infinite loss or
            gradient out. Defaults to ``'stop'``.
        max_skips (int): With ``'skip'``, stop at the next one after so many in the whole run (a
            resumed one counts on). Defaults to 100.
        **kwargs: Those of :class:`mmengine.runner.EpochBasedTrainLoop`.

    Attributes:
        batch (int): Batches of the current epoch that are done.
        validated (bool): Whether the validation due after the last whole epoch is done.
    """

    def __init__(
        self,
        runner,
        dataloader,
        max_epochs: int,
        bad_loss: str = 'stop',
        max_skips: int = 100,
        **kwargs,
    ):
        sources = [m for m in bare_model(runner).modules() if isinstance(m, NegativeSource)]
        for source in sources:
            share_out_step(source, dataloader)
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        for source in sources:
            _require_a_step(source, self.dataloader.dataset)
        make_gloo_safe()
        self.loss_check = LossCheck(bad_loss, max_skips)
        if not self._hooks(SafeCheckpointHook):
            runner.register_hook(SafeCheckpointHook(interval=-1, save_last=False))
        self._checkpoints = self._hooks(SafeCheckpointHook)[0]
        self._preemption = next(iter(self._hooks(PreemptionHook)), None)
        self.batch = 0
        self.validated = True
        self._loader: DataLoader | None = None

    def _hooks(self, kind: type) -> list:
        return [hook for hook in self.runner.hooks if isinstance(hook, kind)]

    def run(self):
        """Train, with a validation that is still due first."""
        try:
            self.runner.call_hook('before_train')
            if self._preemption is not None:
                self._preemption.listen(self.runner)
            self._restore()
            self.loss_check.prepare(self.runner, self._preemption)
            if self._epoch >= self._max_epochs:
                self.runner.logger.warning(
                    f'the training is complete: epoch {self._epoch} of {self._max_epochs} is done, '
                    'and nothing is left to train. For more epochs raise train_cfg.max_epochs'
                )
            self._validate_if_due()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._validate_if_due()
        except Preempted:
            self._checkpoints.save_now(self.runner)
            barrier()  # a launcher that sees one rank end may kill the one that is still writing
            raise
        finally:
            if self._preemption is not None:
                self._preemption.stop_listening()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train on the batches of the epoch that are left."""
        if self.batch:
            with isolated_random_state():  # they were called before, when the epoch began
                self.runner.call_hook('before_train_epoch')
        else:
            self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, data_batch in enumerate(self._batches(), start=self.batch):
            self.run_iter(index, data_batch)
            self.batch = index + 1
            self._checkpoints.after_iteration(self.runner)
            if self._preemption is not None:
                self._preemption.stop_if_asked(self.runner)
        broadcast_statistics(self.runner.model)  # before checkpoint and validation
        self.batch, self.validated = 0, False
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Train on a batch, unless its loss or gradient is NaN or infinite.

        Raises:
            FloatingPointError: If it is.
        """
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self.loss_check.train_step(self.runner, idx, data_batch)
        self.runner.call_hook(
            'after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def _batches(self) -> Iterator:
        """Batches of the current epoch from ``self.batch`` on."""
        if self._loader is None:
            self._loader = resumable_loader(self.dataloader)
        sampler = self._loader.batch_sampler
        if isinstance(sampler, ResumableBatchSampler):
            sampler.first, sampler.epoch, sampler.seed = self.batch, self._epoch, self.seed
        elif self.batch:
            raise InputError(
                'the checkpoint was saved inside an epoch, but the batches of '
                f'{type(self.dataloader.dataset).__name__} cannot be counted: resume from a '
                'checkpoint of a whole epoch (epoch_N.pth)'
            )
        with isolated_random_state():
            batches = iter(self._loader)
        return batches

    def _validate_if_due(self) -> None:
        if self.validated:
            return
        self._decide_current_val_interval()
        if (
            self.runner.val_loop is not None
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
        ):
            with isolated_random_state():
                self.runner.val_loop.run()
        self.validated = True

    @property
    def seed(self) -> int:
        """Seed of the order of the samples, drawn at random where none is configured."""
        return int(getattr(self._sampler(), 'seed', None) or 0)

    def _sampler(self):
        """What has the order of the samples: the sampler, or that in the batch sampler."""
        sampler = self.dataloader.sampler
        if not hasattr(sampler, 'seed'):
            sampler = getattr(self.dataloader.batch_sampler, 'sampler', sampler)
        return sampler

    def save_run_state(self, folder: Path) -> dict:
        """Write what a resumed run goes on from; see the function of this name."""
        return dict(save_run_state(self.runner, folder), loop=self._place())

    def _place(self) -> dict:
        return dict(
            batch=self.batch,
            batches=len(self.dataloader),
            validated=self.validated,
            seed=self.seed,
            batch_size=self.dataloader.batch_size,
            skips=self.loss_check.skips,
        )

    def _restore(self) -> None:
        """Go on from where the checkpoint that is resumed was saved.

        Raises:
            ValueError: If that is inside an epoch whose batches are now others, or see
                `load_run_state`.
        """
        state, folder = self._checkpoints.take_run_state()
        if state is None:
            if self.runner._resume and self.runner._has_loaded:
                self.runner.logger.warning(
                    'the checkpoint holds no run state (SafeCheckpointHook would have written it): '
                    'random numbers and order of the videos differ from an unbroken run'
                )
            return
        place, mine = state.get('loop', {}), self._place()
        load_run_state(self.runner, state, folder, inside_epoch=bool(place.get('batch')))
        if place['batch'] and any(place[k] != mine[k] for k in ('batches', 'batch_size')):
            raise InputError(
                f'the checkpoint was saved after batch {place["batch"]} of an epoch of '
                f'{place["batches"]} batches of {place["batch_size"]} videos per process, but this '
                f'run has {mine["batches"]} of {mine["batch_size"]}: resume with the same data and '
                'batch size, or from a checkpoint of a whole epoch (epoch_N.pth)'
            )
        self.batch, self.validated = place['batch'], place['validated']
        self.loss_check.skips = place['skips']
        if hasattr(self._sampler(), 'seed'):
            self._sampler().seed = place['seed']
