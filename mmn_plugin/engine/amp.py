"""Mixed precision, and TF32, in training, validation and test."""

import argparse
from contextlib import contextmanager

import torch
from mmaction.registry import LOOPS, OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.runner import TestLoop, ValLoop

from mmn_plugin.config import AMP, amp_dtype
from mmn_plugin.errors import InputError


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast on the CPU.

    MMEngine's ``AmpOptimWrapper`` refuses the CPU, for it always scales the loss. bfloat16 has
    float32's range, so nothing needs scaling; weights, gradients and optimizer stay float32.
    ``tools/train.py --amp`` picks this class where there is no accelerator.

    Args:
        **kwargs: those of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model):
        """Autocast around MMEngine's own context (gradient accumulation)."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


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


def apply_amp(config: Config, amp: str = 'auto') -> None:
    """Switch the config's optimizer wrapper to mixed precision.

    float16 has a loss scaler. bfloat16 has float32's range and needs none, so there the host does
    not wait for one.

    Args:
        config (Config): Of a training.
        amp (str): ``'bf16'``, ``'fp16'``, or ``'auto'``: the wrapper's own ``dtype``, else float16
            on accelerators and bfloat16 on the CPU. Defaults to ``'auto'``.

    Raises:
        ValueError: If the config has an optimizer wrapper of another type, or the device has no
            such precision.
    """
    wrapper, device = config.optim_wrapper, get_device()
    dtype = amp_dtype(amp, device)
    known = ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper')
    if wrapper.setdefault('type', 'OptimWrapper') not in known:
        raise InputError(f'--amp cannot replace optim_wrapper.type {wrapper.type!r} of the config')
    if device == 'cpu':
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
        raise InputError(f'--amp cannot replace test_cfg.type {loop.type!r} of the config')
    loop.pop('fp16', None)
    dtype = amp_dtype(amp, get_device())
    loop.update(type='AmpTestLoop', amp='bf16' if dtype == 'bfloat16' else 'fp16')


class AmpLoop:
    """Beside MMEngine's loops, whose ``fp16=True`` leaves the precision open.

    Args:
        *args: Those of the loop.
        amp (str): ``'bf16'``, ``'fp16'`` (not on the CPU), or ``'auto'``: float16 on GPUs,
            bfloat16 on the CPU. Defaults to ``'auto'``.
        **kwargs: Those of the loop, without ``fp16``.

    Raises:
        ValueError: If the device has no such precision.
    """

    def __init__(self, *args, amp: str = 'auto', **kwargs):
        self.dtype = getattr(torch, amp_dtype(amp, get_device()))
        super().__init__(*args, fp16=True, **kwargs)

    def run_iter(self, idx, data_batch) -> None:
        """One batch; MMEngine's autocast names no precision, and takes that of the one around."""
        device = torch.device(get_device()).type
        with torch.autocast(device, dtype=self.dtype, enabled=False):
            super().run_iter(idx, data_batch)


@LOOPS.register_module()
class AmpValLoop(AmpLoop, ValLoop):
    """MMEngine's ``ValLoop`` under autocast, with the arguments of :class:`AmpLoop`."""


@LOOPS.register_module()
class AmpTestLoop(AmpLoop, TestLoop):
    """MMEngine's ``TestLoop`` under autocast, with the arguments of :class:`AmpLoop`."""
