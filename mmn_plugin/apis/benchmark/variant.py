"""One way of computing the same thing."""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch

from mmn_plugin.precision import set_tf32, tf32_allowed


@dataclass(frozen=True)
class Variant:
    """How the model is run.

    Attributes:
        conv_mode (str): ``model.neck.conv_mode``: ``'dense'``, ``'sparse'`` or ``'auto'``.
        dtype (str): ``'fp32'``, ``'tf32'`` (CUDA: matrix products and convolutions of float32
            with rounded factors) or ``'bf16'`` (autocast).
        channels_last (bool): Weights of the moment encoder in that memory format.
        compiled (bool): The moment encoder through ``torch.compile``.
    """

    conv_mode: str = 'dense'
    dtype: str = 'fp32'
    channels_last: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        flags = ' channels_last' * self.channels_last + ' compiled' * self.compiled
        return f'{self.conv_mode} {self.dtype}{flags}'

    @classmethod
    def product(
        cls,
        conv_modes: Sequence[str],
        dtypes: Sequence[str],
        channels_last: bool = False,
        compiled: bool = False,
    ) -> list['Variant']:
        """All combinations, the first of everything first; the flags add variants."""
        return [
            cls(mode, dtype, layout, compile_it)
            for compile_it, layout, dtype, mode in product(
                (False, True)[: 1 + compiled],
                (False, True)[: 1 + channels_last],
                dtypes,
                conv_modes,
            )
        ]

    def check(self, device: str) -> None:
        """Raise ValueError if the device has no such precision."""
        if self.dtype == 'tf32' and torch.device(device).type != 'cuda':
            raise ValueError(f'--dtype tf32 is for CUDA, not for {device}')

    def autocast(self, device: str):
        """Context of the forward pass."""
        return torch.autocast(
            torch.device(device).type, dtype=torch.bfloat16, enabled=self.dtype == 'bf16'
        )

    @contextmanager
    def backends(self):
        """Context of forward and backward: whether CUDA may round the factors of products."""
        before = tf32_allowed()
        set_tf32(*[self.dtype == 'tf32'] * 2)
        try:
            yield
        finally:
            set_tf32(*before)
