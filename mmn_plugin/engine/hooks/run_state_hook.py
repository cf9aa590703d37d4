"""Everything of a run that MMEngine's checkpoints leave out."""

import io
import os
import pickle
import struct
from collections.abc import Iterator
from typing import Any

import torch
from mmaction.registry import HOOKS
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.fileio import get_local_path
from mmengine.hooks import Hook
from mmengine.runner import find_latest_checkpoint

from ..bare_model import bare_model
from ..checkpoints import plain
from ..random_state import random_state, set_random_state

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
            raise ValueError(
                f'the run state of the checkpoint is of version {state.get("version")}, and this '
                f"program's is {self.VERSION}: resume with the version of mmn_plugin that wrote "
                'it, or train on from its weights alone (load_from)'
            )
        files, problem = self._read(state)
        if problem and state['loop'].get('batch'):
            raise ValueError(
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
