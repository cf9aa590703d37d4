"""Save a checkpoint and exit on SIGTERM."""

import os
import signal
import threading
import time
from functools import partial

import torch
from mmaction.registry import HOOKS
from mmengine.dist import all_reduce, get_comm_device
from mmengine.hooks import Hook

from .dist import highest


class Preempted(SystemExit):
    """Raised on all ranks at the same iteration; a checkpoint is saved while it passes the loop.

    Args:
        code (int): Exit code of the process.
        reason (str): For the log.
    """

    def __init__(self, code: int, reason: str):
        super().__init__(code)
        self.reason = reason


_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_ONE_PRESS = 1.0  # seconds: terminal and launcher may both pass on one Ctrl-C


@HOOKS.register_module()
class PreemptionHook(Hook):
    """On SIGTERM or Ctrl-C, finish the iteration, save, and end with an exit code of its own.

    All ranks stop after the same iteration, whichever of them the signal reached; in a validation
    after the same batch of it, and the validation is made up for on resuming. Several ranks agree
    on it where `LossCheck` waits for the device anyway, so that a signal during the optimizer's
    step counts for the next iteration; where it does not, after every iteration.

    The data loaders' workers ignore the signal unless it comes from their own process (schedulers
    send it to all processes of a job, and the iteration needs its batch). Needs
    `ResumableTrainLoop`; under another loop the signal keeps its meaning.

    Args:
        signals (tuple[str]): Names of the signals. Defaults to ``('SIGTERM', 'SIGINT')``. After
            SIGINT (Ctrl-C) a second one ends the process at once. Where a process was started with
            SIGINT ignored, as shells start those in the background, it stays so.
        exit_code (int): Exit code; after SIGINT it is 130. Defaults to 143 (128 + 15), what a shell
            reports for a process ended by SIGTERM: a script that continues only after success does
            not take the run for finished, and one that starts it again can tell it from a failure
            (1). tools/launch.py, and so ``dist_*.sh`` and ``slurm_*.sh``, end with it as well;
            plain ``torchrun`` ends with 1.

    Attributes:
        agreed (int, optional): The highest `asked` of all ranks, where that is known already for
            the current iteration; else None.
    """

    priority = 'LOWEST'

    def __init__(self, signals: tuple[str, ...] = ('SIGTERM', 'SIGINT'), exit_code: int = 143):
        self.signals = [getattr(signal, name) for name in signals]
        self.exit_code = exit_code
        self.agreed: int | None = None
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._stopping = False
        self._replaced: dict = {}
        self._shared_batches = 0

    @property
    def asked(self) -> int:
        """Exit code that this rank was asked to end with; 0 if it was not."""
        if self._asked is None:
            return 0
        return _INTERRUPTED if self._asked == signal.SIGINT else self.exit_code

    def listen(self, runner) -> None:
        """Note signals from now on; in the main thread alone, which gets them."""
        if threading.current_thread() is not threading.main_thread():
            return
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loader = loop.dataloader
                loader.worker_init_fn = partial(
                    _heed_parent_alone, self.signals, os.getpid(), loader.worker_init_fn
                )
        self._asked, self._stopping, self.agreed = None, False, None
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        self._replaced = {
            number: signal.signal(number, self._note)
            for number in self.signals
            if not (ignored and number == signal.SIGINT)
        }

    def stop_listening(self) -> None:
        """Stop listening.

        A process that was asked to end ignores further requests while it does so: a launcher sends
        one to the ranks that are still there when the first has ended.
        """
        for number, handler in self._replaced.items():
            signal.signal(number, signal.SIG_IGN if self._stopping else handler)
        self._replaced = {}

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
            self.stop_if_asked(runner)

    def stop_if_asked(self, runner) -> None:
        """Stop if any rank was asked to; all ranks must call it.

        Raises:
            Preempted: On all ranks.
        """
        agreed, self.agreed = self.agreed, None
        code = (highest(self.asked) if agreed is None else agreed) if self._replaced else 0
        if not code:
            return
        reason = (
            f'{self._asked.name} received' if self._asked else 'another process was asked to stop'
        )
        runner.logger.warning(
            f'{reason}: stopping after iteration {runner.iter}; run again with '
            '--resume to go on from there'
        )
        self._stopping = True
        raise Preempted(code, reason)

    def _note(self, number, frame) -> None:
        if self._asked is None:
            self._asked, self._asked_at = signal.Signals(number), time.monotonic()
            again = ' (once more: at once)' if number == signal.SIGINT else ''
            os.write(
                2, f'{self._asked.name} received: stopping after this iteration{again}\n'.encode()
            )
        elif number == signal.SIGINT and time.monotonic() > self._asked_at + _ONE_PRESS:
            raise KeyboardInterrupt


def _heed_parent_alone(signals, parent: int, init, worker_id: int) -> None:
    """Make a data loader's worker ignore the signals, unless its parent sends them to end it.

    It also ends when the parent is gone; PyTorch's own watch misses one that was killed while the
    worker started.
    """
    if init is not None:
        init(worker_id)
    if hasattr(signal, 'sigtimedwait'):  # Linux; elsewhere workers keep PyTorch's handling
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        threading.Thread(target=_end_with_parent, args=(set(signals), parent), daemon=True).start()


def _end_with_parent(signals, parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait(signals, 5)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)
