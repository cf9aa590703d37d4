"""Resuming exactly: the training loop, the state of a run, seeded samples."""

import io
import os
import pickle
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmaction.registry import HOOKS, LOOPS
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.fileio import get_local_path
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, find_latest_checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from mmn_plugin.errors import InputError

from .checkpoint_files import plain
from .checkpointing import SafeCheckpointHook
from .dist import bare_model, make_gloo_safe
from .preemption import Preempted


def random_state() -> dict:
    """State of Python's, NumPy's and PyTorch's generators, as plain data and CPU tensors.

    Returns:
        dict: ``python`` (tuple), ``numpy`` (tuple, its keys a tensor), ``torch`` (uint8 tensor)
            and, where CUDA is in use, ``cuda`` (uint8 tensor) of the current device.
    """
    algorithm, keys, *rest = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Set the generators to what `random_state` returned, on whatever device it was loaded."""
    random.setstate(state['python'])
    algorithm, keys, *rest = state['numpy']
    np.random.set_state((algorithm, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def isolated_random_state() -> Iterator[None]:
    """Whatever draws random numbers within leaves no trace outside, also when it raises."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


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


_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
    pickle.UnpicklingError,
)  # a damaged file fails in many ways
_COMMON = 'common.pth'


@HOOKS.register_module()
class RunStateHook(Hook):
    """Write every rank's state beside the checkpoint, and take it from there on resuming.

    A rank's state is the state of its random generators; what accumulated gradients wait for the
    next optimiser step; its buffers (on other ranks than 0, whose buffers a checkpoint has
    anyway); and what hooks, the model and its modules offer, where they have the two methods

    - ``rank_state() -> dict`` of tensors, numbers, strings, lists, tuples and dicts,
    - ``load_rank_state(state: dict)``, called after all hooks' ``before_train`` where the
      checkpoint has one, with tensors on the CPU,

    or the same two for what all ranks have in common, ``common_state`` and ``load_common_state``:
    rank 0 writes it once, and it comes back with any number of ranks.

    Every rank writes a file of its own when a checkpoint asks for it on all ranks (the hook point
    ``save_run_state(folder, backend)``, called by `SafeCheckpointHook`). The checkpoint itself,
    under ``run_state``, has the name of their folder, which no other checkpoint has, and the place
    of the train loop. The files need nothing but ``weights_only`` loading. A checkpoint that only
    serves for its weights (``best_*.pth``) has none of this.
    """

    priority = 'LOWEST'  # restores after all others have prepared themselves
    KEY = 'run_state'
    VERSION = 2

    def __init__(self):
        self._saved: dict | None = None
        self._loaded: dict | None = None
        self._folder = ''

    def save_run_state(self, runner, folder: str, backend) -> None:
        """Write this rank's file; returns when the files of all ranks are there.

        Args:
            runner (Runner): The runner.
            folder (str): New folder; its last part is its name in the checkpoint.
            backend (BaseStorageBackend): What writes files there.

        Raises:
            TypeError: If a part's state holds what a checkpoint cannot.
            OSError: If a file cannot be written.
        """
        files = {f'rank_{get_rank()}.pth': self._state(runner)}
        common = _plain_states(runner, 'common_state') if get_rank() == 0 else {}
        if any(common.values()):
            files[_COMMON] = common
        for name, content in files.items():
            buffer = io.BytesIO()
            torch.save(content, buffer)
            backend.put(buffer.getvalue(), backend.join_path(folder, name))
        barrier()
        loop = getattr(runner.train_loop, 'rank_state', dict)()
        self._saved = dict(
            version=self.VERSION,
            world_size=get_world_size(),
            folder=os.path.basename(folder),
            common=_COMMON in files,
            loop=plain(loop, 'the train loop'),
        )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Name the files in a checkpoint that can be resumed from."""
        if self._saved is not None and 'optimizer' in checkpoint:
            checkpoint[self.KEY] = self._saved
            self._saved = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what a resumed checkpoint says of the run until training begins.

        MMEngine loads checkpoints to the model's device. The optimiser's step counters belong on
        the CPU, where PyTorch makes them: on a GPU every step would wait for each of them.
        """
        state = checkpoint.pop(self.KEY, None)
        if not runner._resume:
            return
        self._loaded = state
        source = runner._load_from or find_latest_checkpoint(runner.work_dir) or ''
        self._folder = os.path.join(os.path.dirname(source), self.KEY)
        for values in checkpoint.get('optimizer', {}).get('state', {}).values():
            if torch.is_tensor(values.get('step')):
                values['step'] = values['step'].cpu()

    def before_train(self, runner) -> None:
        """Restore the state; with another number of ranks only what all ranks share.

        Raises:
            ValueError: If the checkpoint was saved inside an epoch and by another number of ranks,
                or a file is missing or damaged. If another version of this package wrote it.
        """
        state, self._loaded = self._loaded, None
        if state is None:
            if runner._resume and runner._has_loaded:
                runner.logger.warning(
                    'the checkpoint holds no run state (SafeCheckpointHook would have written it): '
                    'random numbers, order of the videos and memory banks differ from an unbroken '
                    'run'
                )
            return
        if state.get('version') != self.VERSION:
            raise InputError(
                f'the run state of the checkpoint is of version {state.get("version")}, and this '
                f"program's is {self.VERSION}: resume with the version of mmn_plugin that wrote "
                'it, or train on from its weights alone (load_from)'
            )
        files, problem = self._read(state)
        if problem and state['loop'].get('batch'):
            raise InputError(
                f'{problem}: inside an epoch it can only be resumed with as many '
                'processes and all their files. Or resume from a checkpoint of a '
                'whole epoch (epoch_N.pth)'
            )
        if hasattr(runner.train_loop, 'load_rank_state') and state['loop']:
            runner.train_loop.load_rank_state(state['loop'])
        if problem:
            runner.logger.warning(
                f'{problem}: the order of the videos goes on, but random numbers '
                'and what each process remembers (memory bank, counters) begin '
                'anew'
            )
        self._restore(runner, files)

    def _read(self, state: dict) -> tuple[dict, str | None]:
        """Files of this rank by name; and what is wrong with those of any rank."""
        folder = os.path.join(self._folder, state['folder'])
        names = [_COMMON] if state['common'] else []
        found, mine, other_ranks = {}, None, None
        if state['world_size'] == get_world_size():
            names.append(f'rank_{get_rank()}.pth')
        else:
            other_ranks = (
                f'the checkpoint was saved by {state["world_size"]} processes, and this '
                f'run has {get_world_size()}'
            )
        for name in names:
            try:
                with get_local_path(os.path.join(folder, name)) as path:
                    found[name] = torch.load(path, map_location='cpu', weights_only=True)
            except _UNREADABLE as error:
                reason = (
                    'is missing'
                    if isinstance(error, FileNotFoundError)
                    else f'cannot be read ({str(error).splitlines()[0]})'
                )
                mine = f'{os.path.join(folder, name)}, a part of the checkpoint, {reason}'
        problems = [text for text in all_gather_object(mine) if text]
        return ({}, problems[0]) if problems else (found, other_ranks)

    def _state(self, runner) -> dict:
        model = bare_model(runner)
        state = dict(random=random_state(), parts=_plain_states(runner, 'rank_state'))
        if get_rank() > 0:
            state['buffers'] = {name: plain(b, name) for name, b in model.named_buffers()}
        if self._accumulating(runner.optim_wrapper):
            state['gradients'] = {
                name: plain(p.grad, name)
                for name, p in model.named_parameters()
                if p.grad is not None
            }
        return state

    @staticmethod
    def _accumulating(optim_wrapper) -> bool:
        counts = getattr(optim_wrapper, '_accumulative_counts', 1)
        return counts > 1 and optim_wrapper.inner_count % counts != 0

    @staticmethod
    def _restore(runner, files: dict) -> None:
        for name, content in files.items():
            kind = 'common_state' if name == _COMMON else 'rank_state'
            states = dict(content if name == _COMMON else content['parts'])
            for owner, part, now in _offered(runner, kind):
                if states.get(owner):
                    getattr(part, f'load_{kind}')(states[owner])
                elif now:
                    runner.logger.warning(
                        f'the checkpoint has no state of {owner}, which begins anew'
                    )
                states.pop(owner, None)
            for owner in states:
                runner.logger.warning(
                    f'the checkpoint has a state of {owner}, which this run lacks'
                )
            if name != _COMMON:
                _restore_rank(bare_model(runner), content)


def _restore_rank(model, state: dict) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in state.get('buffers', {}):
                buffer.copy_(state['buffers'][name])
        for name, parameter in model.named_parameters():
            if name in state.get('gradients', {}):
                parameter.grad = state['gradients'][name].to(parameter)
    set_random_state(state['random'])


def _offered(runner, method: str) -> Iterator[tuple[str, Any, dict]]:
    """What offers a state, under a name that the next run gives it as well; and its state now."""
    named = []
    seen: dict[str, int] = {}
    for hook in runner.hooks:
        name = type(hook).__name__
        seen[name] = seen.get(name, 0) + 1
        named.append((f'hook.{name}' + (f'.{seen[name]}' if seen[name] > 1 else ''), hook))
    named += [
        (f'model.{name}' if name else 'model', module)
        for name, module in bare_model(runner).named_modules()
    ]
    for name, part in named:
        if callable(getattr(part, method, None)):
            yield name, part, getattr(part, method)()


def _plain_states(runner, method: str) -> dict:
    return {
        name: plain(state, f'{method}() of {name}') for name, _, state in _offered(runner, method)
    }


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


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` whose interruption leaves no trace in the weights.

    - A checkpoint may be saved after any iteration; resumed, the epoch goes on with its next batch.
    - A validation that was due when the run ended is made up for, before training goes on.
    - Loading, starting workers and validating draw their random numbers apart from training, so
      that it does not matter how often they happen; a sample's follow from the run's seed, epoch
      and place (see `SeededDataset`).

    It calls two hook points beside MMEngine's, on all ranks and at the same iteration:
    ``between_train_iters(runner)`` after an iteration is counted, where ``runner.iter`` is the
    number of finished iterations, and ``after_validation(runner)`` when a validation is over and
    the random state is training's again. ``save_now(runner)`` asks for a checkpoint when a hook has
    raised `Preempted`, and ``leave_train(runner)`` is called however training ends. `RunStateHook`
    takes the state from here; `SafeCheckpointHook` saves it. A run without them is given them: the
    latter, where no hook has ``save_now`` (MMEngine's ``CheckpointHook`` has not), to save when the
    run is asked to stop, and at no other time.

    Args: those of :class:`mmengine.runner.EpochBasedTrainLoop`.

    Attributes:
        batch (int): Batches of the current epoch that are done.
        validated (bool): Whether the validation due after the last whole epoch is done.
    """

    def __init__(self, runner, dataloader, max_epochs: int, **kwargs):
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        make_gloo_safe()
        if not any(hasattr(hook, 'save_now') for hook in runner.hooks):
            runner.register_hook(SafeCheckpointHook(interval=-1, save_last=False))
        if not any(hasattr(hook, 'save_run_state') for hook in runner.hooks):
            runner.register_hook(RunStateHook())
        self.batch = 0
        self.validated = True
        self._loader: DataLoader | None = None

    def run(self):
        """Train, with a validation that is still due first."""
        try:
            self.runner.call_hook('before_train')
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
            self.runner.call_hook('save_now')
            barrier()  # a launcher that sees one rank end may kill the one that is still writing
            raise
        finally:
            self.runner.call_hook('leave_train')
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
            self.runner.call_hook('between_train_iters')
        self.batch, self.validated = 0, False
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _batches(self) -> Iterator:
        """Batches of the current epoch from ``self.batch`` on."""
        if self._loader is None:
            self._loader = self._resumable_loader()
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

    def _resumable_loader(self) -> DataLoader:
        loader = self.dataloader
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return loader
        settings = {
            name: getattr(loader, name) for name in _LOADER_SETTINGS if hasattr(loader, name)
        }
        return DataLoader(
            SeededDataset(loader.dataset),
            batch_sampler=ResumableBatchSampler(loader.batch_sampler, get_rank()),
            **settings,
        )

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
            self.runner.call_hook('after_validation')
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

    def rank_state(self) -> dict:
        """Where this rank stands, for `RunStateHook`."""
        return dict(
            batch=self.batch,
            batches=len(self.dataloader),
            validated=self.validated,
            seed=self.seed,
            batch_size=self.dataloader.batch_size,
        )

    def load_rank_state(self, state: dict) -> None:
        """Go on from where `rank_state` stood.

        Raises:
            ValueError: If that is inside an epoch whose batches are now others.
        """
        mine = self.rank_state()
        if state['batch'] and any(state[k] != mine[k] for k in ('batches', 'batch_size')):
            raise InputError(
                f'the checkpoint was saved after batch {state["batch"]} of an epoch of '
                f'{state["batches"]} batches of {state["batch_size"]} videos per process, but this '
                f'run has {mine["batches"]} of {mine["batch_size"]}: resume with the same data and '
                'batch size, or from a checkpoint of a whole epoch (epoch_N.pth)'
            )
        self.batch, self.validated = state['batch'], state['validated']
        if hasattr(self._sampler(), 'seed'):
            self._sampler().seed = state['seed']
