"""What every process has to remember for an exact resume."""

import io
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from mmengine.fileio import get_local_path

from mmn_plugin.errors import InputError

from .checkpoint_files import plain
from .dist import bare_model, persistent_buffers


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


_VERSION = 3
_COMMON = 'common.pth'


def save_run_state(runner, folder: str, backend) -> dict:
    """Write what this rank has to remember beside a checkpoint; all ranks must call it.

    A rank's state is the state of its random generators; what accumulated gradients wait for the
    next optimizer step; its buffers (on other ranks than 0, whose buffers a checkpoint has
    anyway); and what hooks, the model and its modules offer, where they have the two methods

    - ``rank_state() -> dict`` of tensors, numbers, strings, lists, tuples and dicts,
    - ``load_rank_state(state: dict)``, called after all hooks' ``before_train`` where the
      checkpoint has one, with tensors on the CPU,

    or the same two for what all ranks have in common, ``common_state`` and ``load_common_state``:
    rank 0 writes it once, and it comes back with any number of ranks.

    The files, one of each rank, need nothing but ``weights_only`` loading. They are there when this
    returns.

    Args:
        runner (Runner): The runner.
        folder (str): New folder; no other checkpoint's has its name.
        backend (BaseStorageBackend): What writes files there.

    Returns:
        dict: What the checkpoint itself has to hold, under ``run_state``.

    Raises:
        ValueError: If a part's state holds what a checkpoint cannot.
        OSError: If a file cannot be written.
    """
    files = {f'rank_{get_rank()}.pth': _rank_state(runner)}
    common = _plain_states(runner, 'common_state') if get_rank() == 0 else {}
    if any(common.values()):
        files[_COMMON] = common
    for name, content in files.items():
        buffer = io.BytesIO()
        torch.save(content, buffer)
        backend.put(buffer.getvalue(), backend.join_path(folder, name))
    barrier()
    return dict(
        version=_VERSION,
        world_size=get_world_size(),
        folder=os.path.basename(folder),
        common=_COMMON in files,
    )


def _rank_state(runner) -> dict:
    model, wrapper = bare_model(runner), runner.optim_wrapper
    state = dict(random=random_state(), parts=_plain_states(runner, 'rank_state'))
    if get_rank() > 0:
        state['buffers'] = {name: plain(b, name) for name, b in persistent_buffers(model)}
    counts = getattr(wrapper, '_accumulative_counts', 1)
    if counts > 1 and wrapper.inner_count % counts:
        state['gradients'] = {
            name: plain(p.grad, name) for name, p in model.named_parameters() if p.grad is not None
        }
    return state


def load_run_state(runner, state: dict, folder: str, inside_epoch: bool) -> None:
    """Restore what `save_run_state` wrote; with another number of ranks only what they share.

    Args:
        runner (Runner): The runner.
        state (dict): What `save_run_state` returned.
        folder (str): Folder that holds the files' folder now.
        inside_epoch (bool): Whether the checkpoint was saved inside an epoch.

    Raises:
        ValueError: If it was, and by another number of ranks, or a file is missing or damaged. If
            another version of this package wrote it.
    """
    if state.get('version') != _VERSION:
        raise InputError(
            f'the run state of the checkpoint is of version {state.get("version")}, and this '
            f"program's is {_VERSION}: resume with the version of mmn_plugin that wrote "
            'it, or train on from its weights alone (load_from)'
        )
    files, problem = _read_states(os.path.join(folder, state['folder']), state)
    if problem and inside_epoch:
        raise InputError(
            f'{problem}: inside an epoch it can only be resumed with as many '
            'processes and all their files. Or resume from a checkpoint of a '
            'whole epoch (epoch_N.pth)'
        )
    if problem:
        runner.logger.warning(
            f'{problem}: the order of the videos goes on, but random numbers and what each '
            'process remembers (memory bank, counters) begin anew'
        )
    for name, content in files.items():
        if name == _COMMON:
            _restoreparts_with(runner, 'common_state', content)
        else:
            _restoreparts_with(runner, 'rank_state', content['parts'])
            _restore_rank(bare_model(runner), content)


def _read_states(folder: str, state: dict) -> tuple[dict, str | None]:
    """Files of this rank by name; and what is wrong with those of any rank."""
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
        path = os.path.join(folder, name)
        try:
            with get_local_path(path) as local:
                found[name] = torch.load(local, map_location='cpu', weights_only=True)
        except FileNotFoundError:
            mine = f'{path}, a part of the checkpoint, is missing'
        except Exception as error:  # a damaged file fails in many ways
            reason = str(error).splitlines()[0]
            mine = f'{path}, a part of the checkpoint, cannot be read ({reason})'
    problems = [text for text in all_gather_object(mine) if text]
    return ({}, problems[0]) if problems else (found, other_ranks)


def _restoreparts_with(runner, kind: str, states: dict) -> None:
    left = dict(states)
    for owner, part in parts_with(runner, kind):
        state = left.pop(owner, None)
        if state:
            getattr(part, f'load_{kind}')(state)
        elif getattr(part, kind)():
            runner.logger.warning(f'the checkpoint has no state of {owner}, which begins anew')
    for owner in left:
        runner.logger.warning(f'the checkpoint has a state of {owner}, which this run lacks')


def _restore_rank(model, state: dict) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in state.get('buffers', {}):
                buffer.copy_(state['buffers'][name])
        for name, parameter in model.named_parameters():
            if name in state.get('gradients', {}):
                parameter.grad = state['gradients'][name].to(parameter)
    set_random_state(state['random'])


def parts_with(runner, method: str) -> Iterator[tuple[str, Any]]:
    """Hooks and modules that have a method, under names that the next run gives them as well."""
    seen: dict[str, int] = {}
    named = []
    for hook in runner.hooks:
        name = type(hook).__name__
        seen[name] = seen.get(name, 0) + 1
        named.append((f'hook.{name}' + (f'.{seen[name]}' if seen[name] > 1 else ''), hook))
    named += [
        (f'model.{name}' if name else 'model', module)
        for name, module in bare_model(runner).named_modules()
    ]
    return ((name, part) for name, part in named if callable(getattr(part, method, None)))


def _plain_states(runner, method: str) -> dict:
    return {
        name: plain(getattr(part, method)(), f'{method}() of {name}')
        for name, part in parts_with(runner, method)
    }
