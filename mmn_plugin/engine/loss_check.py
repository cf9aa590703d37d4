"""Stop at, or skip, a NaN or Inf loss or gradient."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_comm_device, get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mmn_plugin.errors import InputError, NonFiniteError

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

    With a loss scaler (float16) it is left to that whether a gradient is bad: it skips a step whose
    gradient overflows, and lowers the scale. The norm to clip by is fetched here as well.

    The check is the one time in an iteration that the host waits for the device: one copy fetches
    the losses that a localizer logs (of other models their sum), the gradient's norm and what the
    ranks have to tell each other, which includes whether `PreemptionHook` of any rank was asked to
    stop. Log and clipping take their values from there.

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
        self._place: tuple[int, dict] = (0, {})  # of the batch, and the batch
        self._norms: tuple[Tensor | None, Tensor | None] = (None, None)  # on device and host
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
            dict[str, Any]: What the model logs; empty where the batch was skipped.

        Raises:
            FloatingPointError: If a value is NaN or infinite.
        """
        self.skipped, self._place = False, (batch_idx, data_batch)
        named = persistent_buffers(bare_model(runner)) if self.action == 'skip' else {}
        before = [(buffer, buffer.detach().clone()) for buffer in named.values()]
        wrapper = _CheckedWrapper(runner.optim_wrapper, partial(self._check, runner))
        outputs = runner.model.train_step(data_batch, optim_wrapper=wrapper)
        if not self.skipped:
            return outputs
        runner.optim_wrapper.zero_grad()
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        return {}

    def _check(self, runner, loss: Tensor) -> bool:
        """Fetch what decides about the step; whether to take it, as all ranks do."""
        losses = getattr(bare_model(runner), 'log_vars', None) or dict(loss=loss)
        scaler, norm = _loss_scaler(runner.optim_wrapper), _gradient_norm(runner.optim_wrapper)
        judged = norm if scaler is None else None
        asked = 0 if self._preemption is None else self._preemption.asked
        flags = _flags(losses, judged, asked) if get_world_size() > 1 else None
        fetched = _fetch(losses | {_NORM: norm, _FLAGS: flags})
        self._norms, flags = (norm, fetched.pop(_NORM)), fetched.pop(_FLAGS)
        losses.update(fetched)
        mine = _bad(losses)
        my_norm = '' if judged is None else _bad({'gradient norm': self._norms[1]})
        bad_loss, bad_gradient = bool(mine), bool(my_norm)
        if flags is not None:
            # exit codes, below 256, are exact in any type that the losses have
            bad_loss, bad_gradient, asked = map(int, flags.tolist())
            if self._preemption is not None:
                self._preemption.agreed = asked
        if my_norm and not bad_loss:
            mine = my_norm + _bad_gradients(bare_model(runner))
        if bad_loss or bad_gradient:
            self._stop_or_skip(runner, mine and self._describe(runner, mine))
        return not self.skipped

    def _stop_or_skip(self, runner, mine: str) -> None:
        """Agree on it; `mine` is what is bad on this rank, if anything."""
        told = enumerate(all_gather_object(mine))
        listed = '; '.join(f'rank {rank}: {text}' for rank, text in told if text)
        if self.action == 'stop':
            raise NonFiniteError(mine or listed)
        if self.skips >= self.max_skips:
            raise NonFiniteError(
                f'the {self.skips} iterations that max_skips allows were skipped before. '
                f'{mine or listed}'
            )
        self.skips += 1
        self.skipped = True
        runner.logger.warning(
            f'iteration skipped ({self.skips} of at most {self.max_skips}): {listed}'
        )

    def _describe(self, runner, bad: str) -> str:
        index, batch = self._place
        videos = ', '.join(sample.video_id for sample in batch.get('data_samples', ()))
        return (
            f'{bad} at epoch {runner.epoch + 1}, iteration {index + 1}, in the batch of '
            f'videos {videos or "unknown"}. Look at their features with '
            '`mmn check`; if they are sound lower the learning rate, and resume '
            'from the last checkpoint'
        )

    def _clip(self, clip: Callable, params: list[Tensor], max_norm: float, **kwargs) -> Tensor:
        """``clip_grad_norm_`` with the norm that is known already; returns it on the host."""
        (norm, on_host), self._norms = self._norms, (None, None)
        if norm is None:
            return clip(params, max_norm, **kwargs)
        clip_grads_with_norm_(params, max_norm, norm, kwargs.get('foreach'))
        return on_host


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


def _loss_scaler(wrapper) -> torch.amp.GradScaler | None:
    """What scales the losses of float16; None where nothing does."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _gradient_norm(wrapper) -> Tensor | None:
    """Norm of the gradient as it is clipped by; None where a loss scaler sees to it unclipped."""
    scaler, options = _loss_scaler(wrapper), wrapper.clip_grad_kwargs or {}
    if scaler is not None and 'max_norm' not in options:
        return None
    gradients = [
        p.grad
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if p.requires_grad and p.grad is not None
    ]
    norm = get_total_norm(gradients, options.get('norm_type', 2.0), False, options.get('foreach'))
    # a scale is a power of 2 unless it is set, so these are the bits of gradients scaled back
    return norm if scaler is None else norm / scaler.scale(torch.ones_like(norm))


def _flags(losses: dict[str, Any], norm: Tensor | None, asked: int) -> Tensor:
    """Whether on any rank a loss is bad, the gradient is bad; and the highest `asked`: (3,)."""
    device = get_comm_device()
    flags = torch.full((3,), asked, dtype=torch.int32, device=device)
    for place, values in enumerate((losses.values(), [norm])):
        bad = [
            (~value.detach().isfinite()).any().to(device)
            for value in values
            if torch.is_tensor(value)
        ]
        flags[place] = torch.stack(bad).any() if bad else False
    all_reduce(flags, op='max')
    return flags


def _fetch(values: dict[str, Any]) -> dict[str, Any]:
    """The same with its tensors on the host, to which one copy brings them all."""
    tensors = {name: value.detach() for name, value in values.items() if torch.is_tensor(value)}
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
