"""What processes of a training agree on, and what each has to remember for an exact resume."""

import atexit
import io
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    barrier,
    broadcast,
    get_comm_device,
    get_rank,
    get_world_size,
)
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmn_plugin.errors import InputError

from .checkpoint_files import plain, write_durably


def highest(number: int) -> int:
    """The highest of all ranks' numbers (32 bits); all ranks must call it.

    One element is reduced, which takes about 0.1 ms over gloo; with GPUs the host waits for them.
    """
    if get_world_size() == 1:
        return number
    value = torch.tensor([number], dtype=torch.int32, device=get_comm_device())
    all_reduce(value, op='max')
    return int(value)


def bare_model(runner) -> nn.Module:
    """The runner's model without what wraps it in a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@MODEL_WRAPPERS.register_module()
class ModelWithoutParameters(nn.Module):
    """Wraps a model that `DistributedDataParallel` refuses, as it has nothing to train.

    Args:
        module (nn.Module): The model.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def val_step(self, data: dict) -> list:
        """Predictions of a batch of validation."""
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        """Predictions of a batch of a test."""
        return self.module.test_step(data)


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that a checkpoint holds, by name."""
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name in stored}


@cache
def make_gloo_safe() -> None:
    """Register, once per process, a pause before forks and the end of gloo before the end.

    A thread of gloo that lets go of a tensor enters Python for a moment. Where a data loader forks
    a worker in that moment, CPython before 3.12 leaves the worker a lock that nobody will release:
    it never starts, and the run waits for it for ever (2 of 6,000 forks right after a
    collective operation in a stress loop, none of 16,000 with the pause; the cause is inferred).
    Letting such threads finish first takes 0.02 s per worker.

    A process that ends without closing its group may be aborted while gloo's threads run.
    """

    def joined() -> bool:
        return distributed.is_available() and distributed.is_initialized()

    def ended() -> None:
        if joined() and distributed.get_backend() == 'gloo':
            distributed.destroy_process_group()

    if sys.version_info < (3, 12) and hasattr(os, 'register_at_fork'):
        # with NCCL as well: beside it, names of common negatives go over gloo
        os.register_at_fork(before=lambda: joined() and time.sleep(0.02))
    atexit.register(ended)


def end_distributed(runner=None, code: int = 0) -> None:
    """End a process of a distributed run that is over; does nothing in an ordinary run.

    gloo's threads can outlive the interpreter, which then ends now and then with "terminate called
    without an active exception" (https://github.com/pytorch/pytorch/issues/190489), and a finished
    training counts as failed; ``destroy_process_group`` alone does not prevent it. So whatever is
    still to be written is written here, and the process ends without tearing down the rest.

    Args:
        runner (Runner, optional): its visualization back ends are closed. Defaults to None.
        code (int): exit code. Defaults to 0.
    """
    if not torch.distributed.is_initialized():
        return
    try:
        if runner is not None:
            runner.visualizer.close()
    except Exception as error:  # figures are saved; a back end's end must not undo the run
        print(f'closing the visualizer failed: {error}', file=sys.stderr)
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_LAUNCHERS = {  # what calls the processes, and what it sets
    'pytorch': (
        'torchrun (`bash tools/dist_train.sh CONFIG PROCESSES` calls it)',
        ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    ),
    'slurm': (
        'srun (`bash tools/slurm_train.sh` calls it, without --launcher slurm)',
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    ),
    'mpi': (
        "Open MPI's mpirun, with MASTER_ADDR set",
        (*(f'OMPI_COMM_WORLD_{name}' for name in ('RANK', 'LOCAL_RANK', 'SIZE')), 'MASTER_ADDR'),
    ),
}


def require_launcher(name: str) -> None:
    """Make sure that this process was started as ``--launcher`` says.

    Args:
        name (str): ``none``, ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ValueError: If environment variables are absent, or one that is a number is none. If there
            is no GPU, which MMEngine's ``slurm`` and ``mpi`` need.
    """
    started_by, needed = _LAUNCHERS.get(name, ('', ()))
    missing = [variable for variable in needed if not os.environ.get(variable)]
    if missing:
        raise InputError(
            f'--launcher {name} is for processes that are started by {started_by}, which sets '
            f'{", ".join(missing)}; for one process leave --launcher out'
        )
    for variable in needed:
        number = variable not in ('MASTER_ADDR', 'SLURM_NODELIST')
        if number and not os.environ[variable].isdecimal():
            raise InputError(
                f'{variable}={os.environ[variable]} is no number, which --launcher {name} needs'
            )
    if name in ('slurm', 'mpi') and get_device() == 'cpu':
        raise InputError(
            f'--launcher {name} needs GPUs, and this process sees none: on CPUs use '
            '`bash tools/dist_train.sh`, or `tools/slurm_train.sh` with '
            'GPUS_PER_NODE=0 PROCESSES=N'
        )


def broadcast_statistics(model: nn.Module) -> None:
    """Give all ranks rank 0's running statistics of BatchNorm; all ranks must call it.

    In training they stay per rank, as published, and rank 0's are what a checkpoint holds. After
    this a validation in training equals a test of that checkpoint. Other buffers stay each rank's
    own.
    """
    if get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for buffer in module.buffers(recurse=False):
                broadcast(buffer, src=0)


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


_COMMON = 'common.pth'


def save_run_state(runner, folder: Path) -> dict:
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
        folder (Path): New folder; no other checkpoint's has its name.

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
        write_durably(buffer.getbuffer(), folder / name)
    barrier()
    return dict(world_size=get_world_size(), folder=folder.name, common=_COMMON in files)


def _rank_state(runner) -> dict:
    model, wrapper = bare_model(runner), runner.optim_wrapper
    state = dict(random=random_state(), parts=_plain_states(runner, 'rank_state'))
    if get_rank() > 0:
        state['buffers'] = {name: plain(b, name) for name, b in persistent_buffers(model).items()}
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
        ValueError: If it was, and by another number of ranks, or a file is missing or damaged.
    """
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
            'process remembers begin anew'
        )
    for name, content in files.items():
        if name == _COMMON:
            _restore_parts(runner, 'common_state', content)
        else:
            _restore_parts(runner, 'rank_state', content['parts'])
            _restore_rank(bare_model(runner), content)


def _read_states(folder: str, state: dict) -> tuple[dict, str | None]:
    """Files of this rank by name; and what is wrong with those of any rank."""
    names = [_COMMON] if state['common'] else []
    found, problem, other_ranks = {}, None, None
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
            found[name] = torch.load(path, map_location='cpu', weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            missing = isinstance(error, FileNotFoundError)
            reason = 'is missing' if missing else f'cannot be read ({str(error).splitlines()[0]})'
            problem = f'{path}, a part of the checkpoint, {reason}'
    problems = [text for text in all_gather_object(problem) if text]
    return ({}, problems[0]) if problems else (found, other_ranks)


def _restore_parts(runner, kind: str, states: dict) -> None:
    left = dict(states)
    for owner, part in parts_with(runner, kind):
        state = left.pop(owner, None)
        if state:
            getattr(part, f'load_{kind}')(state)
        elif getattr(part, kind)():
            runner.logger.warning(f'the checkpoint has no state of {owner}, which begins anew')
    for owner, state in left.items():
        if state:
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
    counts = Counter()
    for hook in runner.hooks:
        name = type(hook).__name__
        counts[name] += 1
        if callable(getattr(hook, method, None)):
            yield f'hook.{name}' + (f'.{counts[name]}' if counts[name] > 1 else ''), hook
    for name, module in bare_model(runner).named_modules():
        if callable(getattr(module, method, None)):
            yield f'model.{name}' if name else 'model', module


def _plain_states(runner, method: str) -> dict:
    return {
        name: plain(getattr(part, method)(), f'{method}() of {name}')
        for name, part in parts_with(runner, method)
    }
