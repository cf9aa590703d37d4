"""Mixed precision by name, and TF32."""

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmn_plugin.errors import InputError

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
        raise InputError(f'mixed precision is bf16 or fp16, not {amp!r}')
    if amp == 'fp16' and on_cpu:
        raise InputError('fp16 needs a GPU; on the CPU mixed precision is bf16')
    return 'bfloat16' if amp == 'bf16' or (amp == 'auto' and on_cpu) else 'float16'


def set_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in this process, in matrix products and in cuDNN.

    PyTorch 2.9 has new names for it, and raises where old and new disagree; so both are set.
    """
    backends = torch.backends
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = allowed
    if hasattr(backends.cudnn, 'conv'):
        for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            part.fp32_precision = 'tf32' if allowed else 'ieee'


def apply_tf32(config: Config) -> None:
    """Do in this process what ``env_cfg.allow_tf32`` of a config says; False where it is absent.

    PyTorch's own default is TF32 in convolutions and float32 in matrix products.

    Raises:
        ValueError: If it is neither True nor False.
    """
    allowed = (config.get('env_cfg') or {}).get('allow_tf32', False)
    if not isinstance(allowed, bool):
        raise InputError(f'env_cfg.allow_tf32={allowed!r}; give True or False')
    set_tf32(allowed)
