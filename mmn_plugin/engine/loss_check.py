"""Stop at, or skip, a NaN or Inf loss or gradient."""

import sys
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_comm_device, get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mmn_plugin.errors import InputError, NonFiniteError, let_others_end_first

from .dist import bare_model, persistent_buffers
from .preemption import PreemptionHook

_NORM, _FLAGS = object(), object()  # keys beside those of the losses


class LossCheck:
    """Stop at a NaN or infinite loss or gradient, or leave its batch out.

    Losses and the norm of the gradient are looked at between the backward pass and the optimizer's
    step, so that the weights are sound in either case, and all ranks do the same: one rank's bad
    loss stops, or skips the iteration of, all of them. A skipped iteration leaves weights,
    optimizer and buffers (BatchNorm's statistics) as they were and its losses out of the log;
    learning rate and iterations go on. Under gradient accumulation every iteration is looked at,
    and a skipped one also drops what its window has accumulated before it. The message names the
    videos of the batch, where a damaged feature is usually found, and of a gradient the parameters.

    With a loss scaler (float16) gradients are left to it: it skips a step whose gradient
    overflows, and lowers the scale.

    The check is the one time in an iteration that the host waits for the device: one copy fetches
    the losses that a localizer logs, the gradient's norm and what the ranks have to tell each
    other, which includes whether `PreemptionHook` of any rank was asked to stop. Log and clipping
    take their values from there. Of other models the sum of the losses is checked there, and what
    they log after the step; likewise of an optimizer wrapper with an update of its own.

    Args:
        action (str): ``'stop'`` or ``'skip'``. Defaults to ``'stop'``.
        max_skips (int): With ``'skip'``, stop at the next one after so many. Defaults to 100.

    Raises:
        ValueError: If the action is unknown.

    Attributes:
        skips (int): Iterations skipped so far.
        skipped (bool): Whether the last iteration was skipped.
    """

    def __init__(self, action: str = 'stop', max_skips: int = 100):
        if action not in ('stop', 'skip'):
            raise InputError(f"train_cfg.bad_loss is 'stop' or 'skip', not {action!r}")
        self.action = action
        self.max_skips = max_skips
        self.skips = 0
        self.skipped = False
        self._place: tuple[int, dict] = (0, {})
        self._checked: dict[str, Any] = {}  # values to log that were looked at
        self._norm: Tensor | None = None  # of the gradient, on its device
        self._norm_on_host: Tensor | None = None
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._preemption: PreemptionHook | None = None

    def prepare(self, runner, preemption: PreemptionHook | None = None) -> None:
        """Clip from now on by the norm that the check has computed.

        Args:
            runner (Runner): About to train.
            preemption (PreemptionHook, optional): Whose ranks agree here. Defaults to None.
        """
        self._preemption, wrapper = preemption, runner.optim_wrapper
        if getattr(wrapper, 'grad_name', None) == 'grad_norm':
            wrapper.clip_func = partial(self._clip, wrapper.clip_func)

    def train_step(self, runner, batch_idx: int, data_batch: dict) -> dict[str, Any]:
        """The model's ``train_step``, with the check in it.

        Returns:
            dict[str, Any]: What the model logs, on the host; empty where the batch was skipped.

        Raises:
            FloatingPointError: If a value is NaN or infinite.
        """
        wrapper, self._checked, self.skipped = runner.optim_wrapper, {}, False
        self._place = batch_idx, data_batch
        if self.action == 'skip':
            buffers = persistent_buffers(bare_model(runner))
            self._buffers = [(buffer, buffer.detach().clone()) for _, buffer in buffers]
        if getattr(type(wrapper), 'update_params', None) is OptimWrapper.update_params:
            wrapper = _CheckedWrapper(wrapper, partial(self._check, runner))
        outputs = runner.model.train_step(data_batch, optim_wrapper=wrapper)
        if self.skipped:
            return {}
        if outputs is not self._checked and (bad := _bad(_fetch(outputs))):
            raise NonFiniteError(self._describe(runner, bad, self._videos()))
        return outputs

    def _check(self, runner, loss: Tensor) -> bool:
        """Fetch what decides about the step; whether to take it, as all ranks do."""
        losses = getattr(bare_model(runner), 'log_vars', None) or dict(loss=loss)
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
        return not self.skipped

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
            '`mmn check`; if they are sound lower the learning rate, and resume '
            'from the last checkpoint'
        )

    def _clip(self, clip: Callable, params: list[Tensor], max_norm: float, **kwargs) -> Tensor:
        """``clip_grad_norm_`` with the norm that is known already; returns it on the host."""
        norm, self._norm = self._norm, None
        if norm is None:
            return clip(params, max_norm, **kwargs)
        clip_grads_with_norm_(params, max_norm, norm, kwargs.get('foreach'))
        return self._norm_on_host


class _CheckedWrapper:
    """An optimizer wrapper as a model's ``train_step`` sees it, with a check before the step.

    Args:
        wrapper (OptimWrapper): The optimizer wrapper.
        check (Callable): Gets the loss; whether to take the step.
    """

    def __init__(self, wrapper: OptimWrapper, check: Callable[[Tensor], bool]):
        self._wrapper = wrapper
        self._check = check

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)

    def update_params(
        self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """As that of ``OptimWrapper``."""
        self._wrapper.backward(self._wrapper.scale_loss(loss))
        if self._check(loss) and self._wrapper.should_update():
            self._wrapper.step(**step_kwargs or {})
            self._wrapper.zero_grad(**zero_kwargs or {})


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
