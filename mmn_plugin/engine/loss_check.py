"""Stop at, or skip, a NaN or Inf loss or gradient."""

import sys
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from mmaction.registry import HOOKS
from mmengine.dist import all_gather_object, all_reduce, get_comm_device, get_world_size
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mmn_plugin.errors import InputError, NonFiniteError, let_others_end_first

from .dist import bare_model
from .preemption import PreemptionHook

_NORM, _FLAGS = object(), object()  # keys beside those of the losses


@HOOKS.register_module()
class CheckLossHook(Hook):
    """Stop at a NaN or infinite loss or gradient, or leave its batch out.

    Losses and the norm of the gradient are looked at between the backward pass and the optimizer's
    step, so that the weights are sound in either case, and all ranks do the same: one rank's bad
    loss stops, or skips the iteration of, all of them. A skipped iteration leaves weights,
    optimizer and buffers (BatchNorm's statistics) as they were and its losses out of the log;
    learning rate and iterations go on. Under gradient accumulation every iteration is looked at,
    and a skipped one also drops what its window has accumulated before it. The message names the
    videos of the batch, where a damaged feature is usually found, and of a gradient the parameters.
    Hooks that keep something of a forward pass can let go of it in the hook point
    ``iteration_skipped(runner)``.

    With a loss scaler (float16) gradients are left to it: it skips a step whose gradient
    overflows, and lowers the scale.

    The check is the one time in an iteration that the host waits for the device: one copy fetches
    the losses, the gradient's norm and what the ranks have to tell each other, which includes
    whether `PreemptionHook` of any rank was asked to stop. Log and clipping take their values from
    there.

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
            raise InputError(f"CheckLossHook.action is 'stop' or 'skip', not {action!r}")
        self.action = action
        self.max_skips = max_skips
        self.skips = 0
        self.skipped = False
        self._place: tuple[int, dict] = (0, {})
        self._losses: dict[str, Any] = {}  # to be checked after the backward pass
        self._checked: dict[str, Any] | None = None  # values to log that were looked at
        self._norm: Tensor | None = None  # of the gradient, on its device
        self._norm_on_host: Tensor | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._preemption: PreemptionHook | None = None

    def rank_state(self) -> dict:
        """For `RunStateHook`."""
        return dict(skips=self.skips)

    def load_rank_state(self, state: dict) -> None:
        """Count on from where `rank_state` stood."""
        self.skips = state['skips']

    def before_train(self, runner) -> None:
        """Put the check between the backward pass and the optimizer's step."""
        self._preemption = next(
            (hook for hook in runner.hooks if isinstance(hook, PreemptionHook)), None
        )
        wrapper, model = runner.optim_wrapper, bare_model(runner)
        if not hasattr(model, 'parse_losses') or not hasattr(wrapper, 'backward'):
            return  # a train_step of its own; after_train_iter still looks

        def parse_losses(parse, losses):
            total, self._losses = parse(losses)
            return total, self._losses

        def backward(run_backward, loss, **kwargs):
            run_backward(loss, **kwargs)
            self._check(runner)

        _put_around(model, 'parse_losses', parse_losses)
        _put_around(wrapper, 'backward', backward)
        _put_around(wrapper, 'should_update', lambda due: not self.skipped and due())
        if getattr(wrapper, 'grad_name', None) == 'grad_norm':  # clipped by it
            _put_around(wrapper, 'clip_func', self._clip)

    def before_train_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Note whose losses come next."""
        self._place, self.skipped = (batch_idx, data_batch), False
        if self.action == 'skip':
            self._buffers = [(b, b.detach().clone()) for b in runner.model.buffers()]

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Look at what is logged where the losses took another way.

        Raises:
            FloatingPointError: If a value is NaN or infinite.
        """
        checked, self._checked = self._checked, None
        if checked is not None and outputs is checked:
            return
        bad = _bad(_fetch(outputs or {}))
        if bad:
            self._place = (batch_idx, data_batch)
            raise NonFiniteError(self._describe(runner, bad, self._videos()))

    def _check(self, runner) -> None:
        """Fetch what decides about the step, and decide as all ranks do."""
        losses, self._losses = self._losses, {}
        self._checked, self._norm = losses, _gradient_norm(runner.optim_wrapper)
        asked = 0 if self._preemption is None else self._preemption.asked
        several = get_world_size() > 1
        fetched = _fetch(
            losses
            | {_NORM: self._norm, _FLAGS: _flags(losses, self._norm, asked) if several else None}
        )
        self._norm_on_host, flags = fetched.pop(_NORM), fetched.pop(_FLAGS)
        losses.update(fetched)
        mine, my_norm = _bad(losses), _bad({'gradient norm': self._norm_on_host})
        bad_loss, bad_gradient = bool(mine), bool(my_norm)
        if several:
            # exit codes, below 256, are exact in any type that the losses have
            bad_loss, bad_gradient, asked = map(int, flags.tolist())
            if self._preemption is not None:
                self._preemption.agreed = asked
        if bad_gradient and not bad_loss:
            mine = my_norm and f'{my_norm}{_bad_gradients(bare_model(runner))}'
        if bad_loss or bad_gradient:
            self._act(runner, mine)
            losses.clear()

    def _act(self, runner, mine: str) -> None:
        """Stop, or undo the iteration; `mine` is what is bad on this rank, if anything."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for rank, (what, videos) in enumerate(all_gather_object((mine, self._videos()))):
            if what:
                ranks, their_videos = found.setdefault(what, ([], []))
                ranks.append(str(rank))
                their_videos.extend(videos)
        texts = {what: self._describe(runner, what, videos) for what, (_, videos) in found.items()}
        listed = '; '.join(
            f'rank {", ".join(ranks)}: {texts[what]}' for what, (ranks, _) in found.items()
        )
        if self.action == 'stop' or self.skips >= self.max_skips:
            self._stop(runner, texts.get(mine), listed)
        self.skips += 1
        self.skipped = True
        runner.optim_wrapper.zero_grad()
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        runner.logger.warning(
            f'iteration skipped ({self.skips} of at most {self.max_skips}): {listed}'
        )
        runner.call_hook('iteration_skipped')

    def _stop(self, runner, mine: str | None, listed: str) -> None:
        more = (
            f'the {self.skips} iterations that max_skips allows were skipped before. '
            if self.action == 'skip'
            else ''
        )
        if mine is not None:
            raise NonFiniteError(more + mine)
        runner.logger.error(more + listed)
        let_others_end_first()
        sys.exit(1)

    def _videos(self) -> list[str]:
        samples = (self._place[1] or {}).get('data_samples', ())
        return [sample.video_id for sample in samples]

    def _describe(self, runner, bad: str, videos: list[str]) -> str:
        return (
            f'{bad} at epoch {runner.epoch + 1}, iteration {self._place[0] + 1}, in the batch of '
            f'videos {", ".join(videos) or "unknown"}. Look at their features with '
            'tools/data/check_dataset.py; if they are sound lower the learning rate, and resume '
            'from the last checkpoint'
        )

    def _clip(self, clip: Callable, params: list[Tensor], max_norm: float, **kwargs) -> Tensor:
        """``clip_grad_norm_`` with the norm that is known already; returns it on the host."""
        norm, self._norm = self._norm, None
        if norm is None:
            return clip(params, max_norm, **kwargs)
        clip_grads_with_norm_(params, max_norm, norm, kwargs.get('foreach'))
        return self._norm_on_host


def _put_around(owner, name: str, function: Callable) -> None:
    """Replace a method by ``function(method, ...)``, also where that was done before."""
    method = getattr(owner, name)
    method = getattr(method, 'replaced', method)
    replacement = partial(function, method)
    replacement.replaced = method
    setattr(owner, name, replacement)


def _gradient_norm(wrapper) -> Tensor | None:
    """Norm of the gradient as it is clipped by; None where a loss scaler sees to it."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None and scaler.is_enabled():
        return None
    gradients = [
        p.grad
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if p.requires_grad and p.grad is not None
    ]
    options = wrapper.clip_grad_kwargs or {}
    return get_total_norm(gradients, options.get('norm_type', 2.0), False, options.get('foreach'))


def _flags(losses: dict[str, Any], norm: Tensor | None, asked: int) -> Tensor:
    """Whether on any rank a loss is bad, the gradient is bad; and the highest `asked`: (3,)."""
    device = get_comm_device()
    values = [value for value in losses.values() if torch.is_tensor(value)]
    flags = torch.full((3,), asked, dtype=torch.int32, device=device)
    for place, checked in enumerate((values, [] if norm is None else [norm])):
        bad = [(~value.detach().isfinite()).any().to(device) for value in checked]
        flags[place] = torch.stack(bad).any() if bad else False
    all_reduce(flags, op='max')
    return flags


def _fetch(values: dict[str, Any]) -> dict[str, Any]:
    """The same with its tensors on the host, to which one copy brings them all."""
    tensors = {name: value.detach() for name, value in values.items() if torch.is_tensor(value)}
    if not tensors:
        return dict(values)
    dtype = reduce(torch.promote_types, (value.dtype for value in tensors.values()))
    device = next(iter(tensors.values())).device
    row = torch.cat([value.to(device, dtype).reshape(-1) for value in tensors.values()]).cpu()
    parts = row.split([value.numel() for value in tensors.values()])
    return values | {
        name: part.view(value.shape)
        for (name, value), part in zip(tensors.items(), parts, strict=True)
    }


def _bad(values: dict[str, Any]) -> str:
    """Names and values of what is NaN or infinite."""
    return ', '.join(
        f'{name}={float(value)}'
        for name, value in values.items()
        if torch.is_tensor(value) and not value.isfinite().all()
    )


def _bad_gradients(model: nn.Module) -> str:
    """Parameters, the first few, whose gradient is NaN or infinite; for the end of a clause."""
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return f' (from {", ".join(names[:3])}{more})' if names else ''
