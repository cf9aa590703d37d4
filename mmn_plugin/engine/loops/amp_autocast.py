"""The precision that MMEngine's loops take."""

from contextlib import contextmanager

import torch
from mmengine.device import get_device

from ..runner.amp import amp_dtype


@contextmanager
def autocast_dtype(amp: str):
    """Choose what MMEngine's autocast, which names no precision, means within; switches none on.

    Args:
        amp (str): ``'bf16'``, ``'fp16'``, or ``'auto'``: float16 on GPUs, bfloat16 on the CPU.

    Raises:
        ValueError: If the device has no such precision.
    """
    device = get_device()
    dtype = getattr(torch, amp_dtype(amp, device))
    with torch.autocast(torch.device(device).type, dtype=dtype, enabled=False):
        yield
