"""The largest memory of one step, in a process that has done nothing else."""

import ctypes
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch

from mmn_plugin.models.necks import workspaces

from .interleave import current_device

CLEAR_PEAK = Path('/proc/self/clear_refs')
M_MMAP_THRESHOLD = -3


def can_measure(device: str) -> bool:
    """Whether this machine tells the peak of a step."""
    return torch.device(device).type == 'cuda' or CLEAR_PEAK.exists()


def peak_of(prepare: Callable[..., Callable[[], object]], *args, device: str = 'cpu') -> float:
    """Growth of memory during a step, in MB, above what was there before it.

    Args:
        prepare (Callable): Builds everything and returns the step; picklable.
        *args: Its arguments.
        device (str): Whose memory: the process's on a CPU (resident), else what the allocator of
            the device gave out.

    Raises:
        RuntimeError: If the measuring process failed; its error is on stderr.
    """
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_measure, args=(sender, prepare, args, device, torch.get_num_threads())
    )
    process.start()
    sender.close()  # so that a process that dies ends the waiting
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError('measuring the memory failed: see the error above') from None
    finally:
        process.join()


def _measure(sender, prepare, args, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    with current_device(device):
        sender.send(_peak_mb(prepare, args, device))


def _peak_mb(prepare, args, device: str) -> float:
    cuda = torch.device(device).type == 'cuda'
    if not cuda:  # or freed memory stays in the process, and hides in the peak
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    step = prepare(*args)
    step()  # libraries set themselves up; cuDNN tries algorithms with large workspaces
    workspaces.clear()  # kept from step to step, but part of what a step takes
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    CLEAR_PEAK.write_text('5')
    before = _resident_peak_mb()
    step()
    return _resident_peak_mb() - before


def _resident_peak_mb() -> float:
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 2**10
