"""What happens when the loss is no number."""
import sys
from typing import Any

import torch
from mmaction.registry import HOOKS
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook

from ..agreement import any_rank, let_others_end_first
from ..bare_model import bare_model


@HOOKS.register_module()
class CheckLossHook(Hook):
    """Stop at a loss that is NaN or infinite, or leave its batch out.

    The loss is looked at before the backward pass, so that the weights are sound in either case,
    and all ranks do the same: one rank's bad loss stops, or skips the iteration of, all of them.
    A skipped iteration leaves weights, optimiser and buffers (BatchNorm's statistics) as they were
    and its losses out of the log; learning rate and iterations go on. Under gradient accumulation
    it also drops what its window has accumulated before it. The message names the videos of the
    batch, where a damaged feature is usually found. Hooks that keep something of a forward pass
    can let go of it in the hook point ``iteration_skipped(runner)``.

    The check is the one time in an iteration that the host waits for the losses: one copy fetches
    all of them, and the log gets the copies.

    Args:
        action (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skips (int): With ``'skip'``, stop at the next one after so many in the whole run (a
            resumed one counts on). Defaults to 100.

    Raises:
        ValueError: If the action is unknown.

    Attributes:
        skips (int): Iterations skipped so far.
        skipped (bool): Whether the current iteration is skipped; other hooks may look.
    """

    def __init__(self, action: str = 'stop', max_skips: int = 100):
        if action not in ('stop', 'skip'):
            raise ValueError(f"CheckLossHook.action is 'stop' or 'skip', not {action!r}")
        self.action = action
        self.max_skips = max_skips
        self.skips = 0
        self.skipped = False
        self._place: tuple[int, dict] = (0, {})
        self._checked: dict[str, Any] | None = None  # values to log that were found finite
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def rank_state(self) -> dict:
        """For `RunStateHook`."""
        return dict(skips=self.skips)

    def load_rank_state(self, state: dict) -> None:
        """Count on from where `rank_state` stood."""
        self.skips = state['skips']

    def before_train(self, runner) -> None:
        """Put the check between the losses and the backward pass."""
        wrapper, model = runner.optim_wrapper, bare_model(runner)
        if not hasattr(model, 'parse_losses') or not hasattr(wrapper, 'update_params'):
            return  # a train_step of its own; after_train_iter still looks
        parse = getattr(model.parse_losses, 'unchecked', model.parse_losses)
        update = getattr(wrapper.update_params, 'unchecked', wrapper.update_params)

        def checked_parse(losses):
            total, log_vars = parse(losses)
            return total, self._check(runner, log_vars)

        def checked_update(loss, *args, **kwargs):
            if not self.skipped:
                update(loss, *args, **kwargs)
                return
            wrapper.zero_grad()
            wrapper._inner_count += 1  # the accumulation's windows stay where they are

        checked_parse.unchecked, checked_update.unchecked = parse, update
        model.parse_losses, wrapper.update_params = checked_parse, checked_update

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Note whose losses come next."""
        self._place, self.skipped = (batch_idx, data_batch), False
        if self.action == 'skip':
            self._buffers = [(b, b.detach().clone()) for b in runner.model.buffers()]

    def after_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Look at what is logged where the losses took another way.

        Raises:
            FloatingPointError: If a value is NaN or infinite.
        """
        checked, self._checked = self._checked, None
        if checked is not None and outputs is checked:
            return
        bad = _bad(_on_host(outputs or {}))
        if bad:
            self._place = (batch_idx, data_batch)
            raise FloatingPointError(self._describe(runner, bad))

    def _check(self, runner, log_vars: dict[str, Any]) -> dict[str, Any]:
        """The values to log: those given, on the host; none in an iteration that is skipped."""
        log_vars = _on_host(log_vars)
        bad = _bad(log_vars)
        if not any_rank(bool(bad)):
            self._checked = log_vars
            return log_vars
        mine = self._describe(runner, bad) if bad else None
        others = all_gather_object(mine)
        others = '; '.join(f'rank {rank}: {text}' for rank, text in enumerate(others) if text)
        if self.action == 'stop' or self.skips >= self.max_skips:
            self._stop(runner, mine, others)
        self.skips += 1
        self.skipped = True
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        runner.logger.warning(
            f'iteration skipped ({self.skips} of at most {self.max_skips}): {others}')
        runner.call_hook('iteration_skipped')
        return {}

    def _stop(self, runner, mine: str | None, others: str) -> None:
        more = (f'the {self.skips} iterations that max_skips allows were skipped before. '
                if self.action == 'skip' else '')
        if mine is not None:
            raise FloatingPointError(more + mine)
        runner.logger.error(more + others)
        let_others_end_first()
        sys.exit(1)

    def _describe(self, runner, bad: dict[str, float]) -> str:
        batch_idx, data_batch = self._place
        samples = (data_batch or {}).get('data_samples', ())
        videos = ', '.join(sample.video_id for sample in samples) or 'unknown'
        listed = ', '.join(f'{name}={value}' for name, value in bad.items())
        return (
            f'{listed} at epoch {runner.epoch + 1}, iteration {batch_idx + 1}, in the batch of '
            f'videos {videos}. Look at their features with tools/data/check_dataset.py; if they '
            'are sound lower the learning rate, and resume from the last checkpoint')


def _on_host(values: dict[str, Any]) -> dict[str, Any]:
    """The same, its tensors on the host; one copy fetches all that are of a kind, as losses are."""
    tensors = {name: value.detach() for name, value in values.items() if torch.is_tensor(value)}
    if len({(value.device, value.dtype, value.shape) for value in tensors.values()}) == 1:
        copies = torch.stack(list(tensors.values())).cpu().unbind()
    else:
        copies = [value.cpu() for value in tensors.values()]
    return values | dict(zip(tensors, copies, strict=True))


def _bad(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()
            if torch.is_tensor(value) and not torch.isfinite(value).all()}
