"""What processes of a training agree on."""

import atexit
import os
import sys
import time
from collections.abc import Iterator

import torch
from mmengine.dist import all_reduce, broadcast, get_comm_device, get_world_size
from mmengine.model import is_model_wrapper
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on at least one rank; all ranks must call it, and get one answer."""
    return bool(highest(int(flag)))


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


def persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers that a checkpoint holds, by name; a memory bank's are not among them."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            if name.rpartition('.')[2] not in module._non_persistent_buffers_set:
                yield name, buffer


_PAUSE = 0.02  # seconds
_done: list[bool] = []


def make_gloo_safe() -> None:
    """Register, once per process, a pause before forks and the end of gloo before the end.

    A thread of gloo that lets go of a tensor enters Python for a moment. Where a data loader forks
    a worker in that moment, CPython before 3.12 leaves the worker a lock that nobody will release:
    it never starts, and the run waits for it for ever (2 of 6,000 forks right after a
    collective operation in a stress loop, none of 16,000 with the pause; the cause is inferred).
    Letting such threads finish first takes 0.02 s per worker.

    A process that ends without closing its group may be aborted while gloo's threads run.
    """
    if _done:
        return
    _done.append(True)
    if sys.version_info < (3, 12) and hasattr(os, 'register_at_fork'):
        os.register_at_fork(before=_pause)
    atexit.register(_close)


def _uses_gloo() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_backend() == 'gloo'
    )


def _pause() -> None:
    if _uses_gloo():
        time.sleep(_PAUSE)


def _close() -> None:
    if _uses_gloo():
        distributed.destroy_process_group()


def broadcast_statistics(model: nn.Module) -> None:
    """Give all ranks rank 0's running statistics of BatchNorm; all ranks must call it.

    In training they stay per rank, as published, and rank 0's are what a checkpoint holds. After
    this a validation in training equals a test of that checkpoint. Other buffers, such as a
    memory bank, stay each rank's own.
    """
    if get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for buffer in module.buffers(recurse=False):
                broadcast(buffer, src=0)
