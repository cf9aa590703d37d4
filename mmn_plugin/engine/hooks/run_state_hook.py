"""Everything of a run that MMEngine's checkpoints leave out."""
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmaction.registry import HOOKS
from mmengine.dist import gather_object, get_rank, get_world_size
from mmengine.hooks import Hook

from ..bare_model import bare_model
from ..random_state import random_state, set_random_state

_PLAIN = (str, bytes, int, float, bool, type(None))


@HOOKS.register_module()
class RunStateHook(Hook):
    """Put every rank's state into the checkpoint, and take it from there on resuming.

    A rank's state is the state of its random generators; what accumulated gradients wait for the
    next optimiser step; its buffers (on other ranks than 0, whose buffers a checkpoint has
    anyway); and what the parts of the run offer: the train loop, every hook, and the model
    and its modules, where they have the two methods

    - ``rank_state() -> dict`` of tensors, numbers, strings, lists, tuples and dicts,
    - ``load_rank_state(state: dict)``, called after all hooks' ``before_train``.

    It is gathered on rank 0 when a checkpoint asks for it on all ranks (the hook point
    ``collect_run_state``, called by `SafeCheckpointHook`): MMEngine's ``before_save_checkpoint``
    runs on the master alone, where waiting for others would hang. It is stored under
    ``checkpoint['run_state']`` and needs nothing but ``weights_only`` loading.
    """

    priority = 'LOWEST'  # restores after all others have prepared themselves
    KEY = 'run_state'

    def __init__(self):
        self._collected: dict | None = None
        self._loaded: dict | None = None

    def collect_run_state(self, runner) -> None:
        """Gather the state of all ranks on rank 0; all ranks must call it.

        Raises:
            TypeError: If a part's state holds what a checkpoint cannot.
        """
        ranks = gather_object(self._state(runner), dst=0)
        self._collected = dict(version=1, world_size=get_world_size(), ranks=ranks)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Store what was collected in a checkpoint that can be resumed from."""
        if self._collected is not None and 'optimizer' in checkpoint:
            checkpoint[self.KEY] = self._collected
            self._collected = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the state of a resumed checkpoint until training begins."""
        state = checkpoint.pop(self.KEY, None)
        if runner._resume:
            self._loaded = state

    def before_train(self, runner) -> None:
        """Restore the state; with another number of ranks only what all ranks share.

        Raises:
            ValueError: If the checkpoint was saved inside an epoch by another number of ranks.
        """
        state, self._loaded = self._loaded, None
        if state is None:
            if runner._resume and runner._has_loaded:
                runner.logger.warning(
                    'the checkpoint holds no run state (another program or an earlier version '
                    'wrote it): random numbers and order of the videos differ from an unbroken run')
            return
        if state['world_size'] == get_world_size():
            self._restore(runner, state['ranks'][get_rank()])
            return
        loop = state['ranks'][0]['parts'].get('loop', {})
        text = (f'the checkpoint was saved by {state["world_size"]} processes, and this run has '
                f'{get_world_size()}')
        if loop.get('batch'):
            raise ValueError(f'{text}: inside an epoch it can only be resumed with as many. Use as '
                             'many, or a checkpoint of a whole epoch (epoch_N.pth)')
        runner.logger.warning(f'{text}: the order of the videos goes on, but random numbers and '
                              'the memory of each process begin anew')
        if hasattr(runner.train_loop, 'load_rank_state') and loop:
            runner.train_loop.load_rank_state(loop)

    def _state(self, runner) -> dict:
        parts = {name: _plain(part.rank_state(), name) for name, part in _parts(runner)}
        model = bare_model(runner)
        state = dict(random=random_state(), parts=parts)
        if get_rank() > 0:
            state['buffers'] = {name: _plain(b, name) for name, b in model.named_buffers()}
        if self._accumulating(runner.optim_wrapper):
            state['gradients'] = {name: _plain(p.grad, name) for name, p in model.named_parameters()
                                  if p.grad is not None}
        return state

    @staticmethod
    def _accumulating(optim_wrapper) -> bool:
        counts = getattr(optim_wrapper, '_accumulative_counts', 1)
        return counts > 1 and optim_wrapper.inner_count % counts != 0

    @staticmethod
    def _restore(runner, state: dict) -> None:
        model = bare_model(runner)
        parts = dict(_parts(runner))
        for name, part in state['parts'].items():
            if name in parts:
                parts[name].load_rank_state(part)
            else:
                runner.logger.warning(f'the checkpoint has a state of {name}, which this run lacks')
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in state.get('buffers', {}):
                    buffer.copy_(state['buffers'][name])
            for name, parameter in model.named_parameters():
                if name in state.get('gradients', {}):
                    parameter.grad = state['gradients'][name].to(parameter)
        set_random_state(state['random'])


def _parts(runner) -> Iterator[tuple[str, Any]]:
    """What offers a state, under a name that the next run gives it as well."""
    named = [('loop', runner.train_loop)]
    seen: dict[str, int] = {}
    for hook in runner.hooks:
        name = type(hook).__name__
        seen[name] = seen.get(name, 0) + 1
        named.append((f'hook.{name}' + (f'.{seen[name]}' if seen[name] > 1 else ''), hook))
    named += [(f'model.{name}' if name else 'model', module)
              for name, module in bare_model(runner).named_modules()]
    for name, part in named:
        if callable(getattr(part, 'rank_state', None)):
            yield name, part


def _plain(value, owner: str):
    """A copy on the CPU of what `weights_only` loading accepts.

    Raises:
        TypeError: If the value is of another kind; the message names its owner.
    """
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.asarray(value).copy()) if value.ndim else value.item()
    if isinstance(value, dict):
        return {_plain(k, owner): _plain(v, owner) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v, owner) for v in value)
    if type(value) in _PLAIN:
        return value
    raise TypeError(f'rank_state() of {owner} holds a {type(value).__name__}; a checkpoint holds '
                    'tensors, numbers, strings, lists, tuples and dicts')
