"""A cluster wants its machine back."""
import os
import signal
import threading
from functools import partial

import torch
from mmaction.registry import HOOKS
from mmengine.dist import all_reduce, get_comm_device
from mmengine.hooks import Hook

from ..agreement import any_rank
from ..preempted import Preempted


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM, finish the iteration, save a checkpoint, and end with an exit code of its own.

    All ranks stop after the same iteration, whichever of them the signal reached; in a validation
    after the same batch of it, and the validation is made up for on resuming. Several ranks agree
    on it where `CheckLossHook` waits for the device anyway, so that a signal during the optimizer's
    step counts for the next iteration; without that hook they agree after every iteration.

    The data loaders' workers ignore the signal unless it comes from their own process (schedulers
    send it to all processes of a job, and the iteration needs its batch). Needs
    `ResumableTrainLoop`; under another loop the signal keeps its meaning.

    Args:
        signals (tuple[str]): Names of the signals. Defaults to ``('SIGTERM',)``.
        exit_code (int): Exit code. Defaults to 143 (128 + 15), what a shell reports for a process
            ended by SIGTERM: a script that continues only after success does not take the run
            for finished, and one that starts it again can tell it from a failure (1).
            tools/launch.py, and so ``dist_*.sh`` and ``slurm_*.sh``, end with it as well; plain
            ``torchrun`` ends with 1.

    Attributes:
        agreed (bool, optional): Whether any rank was asked to stop, where that is known already
            for the current iteration; else None.
    """

    priority = 'LOWEST'

    def __init__(self, signals: tuple[str, ...] = ('SIGTERM',), exit_code: int = 143):
        self.signals = [getattr(signal, name) for name in signals]
        self.exit_code = exit_code
        self.agreed: bool | None = None
        self._asked: str | None = None
        self._stopping = False
        self._replaced: dict = {}
        self._shared_batches = 0

    @property
    def asked(self) -> bool:
        """Whether this rank was asked to stop."""
        return self._asked is not None

    def before_train(self, runner) -> None:
        """Listen."""
        if (not hasattr(runner.train_loop, 'batch')
                or threading.current_thread() is not threading.main_thread()):
            return
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loader = loop.dataloader
                loader.worker_init_fn = partial(
                    _heed_parent_alone, self.signals, os.getpid(), loader.worker_init_fn)
        self._asked, self._stopping, self.agreed = None, False, None
        self._replaced = {number: signal.signal(number, self._note) for number in self.signals}

    def leave_train(self, runner) -> None:
        """Stop listening.

        A process that was asked to end ignores further requests while it does so: a launcher sends
        one to the ranks that are still there when the first has ended.
        """
        for number, handler in self._replaced.items():
            signal.signal(number, signal.SIG_IGN if self._stopping else handler)
        self._replaced = {}

    def between_train_iters(self, runner) -> None:
        """Stop if any rank was asked to.

        Raises:
            Preempted: On all ranks.
        """
        self._stop_if_asked(runner)

    def before_val_epoch(self, runner) -> None:
        """Find out through which batch all ranks validate together."""
        if self._replaced:
            count = torch.tensor([len(runner.val_dataloader)], device=get_comm_device())
            all_reduce(count, op='min')
            self._shared_batches = int(count)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop if any rank was asked to.

        Raises:
            Preempted: On all ranks.
        """
        if batch_idx < self._shared_batches:
            self._stop_if_asked(runner)

    def _stop_if_asked(self, runner) -> None:
        agreed, self.agreed = self.agreed, None
        if not self._replaced or not (any_rank(self.asked) if agreed is None else agreed):
            return
        reason = self._asked or 'another process was asked to stop'
        runner.logger.warning(f'{reason}: stopping after iteration {runner.iter}; run again with '
                              '--resume to go on from there')
        self._stopping = True
        raise Preempted(self.exit_code, reason)

    def _note(self, number, frame) -> None:
        if self._asked is None:
            self._asked = f'{signal.Signals(number).name} received'
            os.write(2, f'{self._asked}: stopping after this iteration\n'.encode())


def _heed_parent_alone(signals, parent: int, init, worker_id: int) -> None:
    """Make a data loader's worker ignore the signals, unless its parent sends them to end it.

    It also ends when the parent is gone; PyTorch's own watch misses one that was killed while the
    worker started.
    """
    if init is not None:
        init(worker_id)
    if hasattr(signal, 'sigtimedwait'):  # Linux; elsewhere workers keep PyTorch's handling
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(
            target=_end_with_parent, args=(set(signals), parent), daemon=True).start()


def _end_with_parent(signals, parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait(signals, 5)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)
