"""Training by epochs that goes on where it stopped, to the bit."""

from collections.abc import Iterator

from mmaction.registry import LOOPS
from mmengine.dist import barrier, get_rank
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, IterableDataset

from ..gloo_safety import make_gloo_safe
from ..hooks.run_state_hook import RunStateHook
from ..hooks.safe_checkpoint_hook import SafeCheckpointHook
from ..preempted import Preempted
from ..random_state import isolated_random_state
from .resumable_batch_sampler import ResumableBatchSampler
from .seeded_dataset import SeededDataset

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
            raise ValueError(
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
            raise ValueError(
                f'the checkpoint was saved after batch {state["batch"]} of an epoch of '
                f'{state["batches"]} batches of {state["batch_size"]} videos per process, but this '
                f'run has {mine["batches"]} of {mine["batch_size"]}: resume with the same data and '
                'batch size, or from a checkpoint of a whole epoch (epoch_N.pth)'
            )
        self.batch, self.validated = state['batch'], state['validated']
        if hasattr(self._sampler(), 'seed'):
            self._sampler().seed = state['seed']
