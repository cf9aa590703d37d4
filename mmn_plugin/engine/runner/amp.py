"""Mixed precision, as the command line asks for it."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device

from .amp_dtype import AMP, amp_dtype

def add_amp(parser: argparse.ArgumentParser) -> None:
    """Add ``--amp [bf16|fp16]``; None where it is absent, ``'auto'`` without a value."""
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=('auto', *AMP),
        metavar='bf16|fp16',
        help='mixed precision (default: fp16; on a CPU bf16)',
    )


def explicit_amp(argv: Sequence[str]) -> list[str]:
    """A command line in which a bare ``--amp`` does not swallow the config that follows it."""
    following = [*argv[1:], '']
    return [
        '--amp=auto' if word == '--amp' and after not in AMP else word
        for word, after in zip(argv, following, strict=True)
    ]


def apply_amp(config: Config, amp: str = 'auto') -> None:
    """Switch the config's optimiser wrapper to mixed precision.

    float16 has a loss scaler. bfloat16 has float32's range and needs none, so there the host does
    not wait for one.

    Args:
        config (Config): Of a training.
        amp (str): ``'bf16'``, ``'fp16'``, or ``'auto'``: the wrapper's own ``dtype``, else float16
            on accelerators and bfloat16 on the CPU. Defaults to ``'auto'``.

    Raises:
        ValueError: If the config has an optimiser wrapper of another type, or the device has no
            such precision.
    """
    wrapper, dtype = config.optim_wrapper, amp_dtype(amp)
    known = ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper')
    if wrapper.setdefault('type', 'OptimWrapper') not in known:
        raise ValueError(f'--amp cannot replace optim_wrapper.type {wrapper.type!r} of the config')
    if get_device() == 'cpu':
        wrapper.type = 'CPUAmpOptimWrapper'
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        return
    wrapper.type = 'AmpOptimWrapper'
    if amp != 'auto':
        wrapper.dtype = dtype
    if amp == 'bf16':
        wrapper.loss_scale = dict(enabled=False)
    wrapper.setdefault('loss_scale', 'dynamic')


def apply_test_amp(config: Config, amp: str = 'auto') -> None:
    """Switch the config's test loop to mixed precision.

    Args:
        config (Config): Of a test.
        amp (str): ``'bf16'``, ``'fp16'``, or ``'auto'``: float16 on accelerators, bfloat16 on the
            CPU. Defaults to ``'auto'``.

    Raises:
        ValueError: If the config has a test loop of another type, or the device has no such
            precision.
    """
    loop = config.test_cfg
    if loop.setdefault('type', 'TestLoop') not in ('TestLoop', 'AmpTestLoop'):
        raise ValueError(f'--amp cannot replace test_cfg.type {loop.type!r} of the config')
    loop.pop('fp16', None)
    loop.update(type='AmpTestLoop', amp='bf16' if amp_dtype(amp) == 'bfloat16' else 'fp16')
