"""Precisions by name."""

from mmengine.device import get_device

AMP = ('bf16', 'fp16')


def amp_dtype(amp: str, device: str | None = None) -> str:
    """What a value of ``--amp`` means on a device.

    Args:
        amp (str): ``'auto'``, ``'bf16'`` or ``'fp16'``.
        device (str, optional): Such as ``'cuda'``. Defaults to None: what MMEngine would use.

    Returns:
        str: ``'bfloat16'`` or ``'float16'``.

    Raises:
        ValueError: If there is no such precision, or not on this device.
    """
    on_cpu = (device or get_device()) == 'cpu'
    if amp not in ('auto', *AMP):
        raise ValueError(f'mixed precision is bf16 or fp16, not {amp!r}')
    if amp == 'fp16' and on_cpu:
        raise ValueError('fp16 needs a GPU; on the CPU mixed precision is bf16')
    return 'bfloat16' if amp == 'bf16' or (amp == 'auto' and on_cpu) else 'float16'
