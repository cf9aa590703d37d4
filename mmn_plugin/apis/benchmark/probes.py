"""What the machine can do: a matrix product, and the config's bare convolution."""

import torch
import torch.nn.functional as F

from .subject import Subject
from .variant import Variant

PRODUCT_SIZE = dict(cpu=2048, cuda=8192)


def product_probe(dtype: str, device: str, size: int | None = None) -> Subject:
    """A square matrix product in a precision."""
    size = size or PRODUCT_SIZE[torch.device(device).type]
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    if dtype == 'bf16':
        left, right = left.bfloat16(), right.bfloat16()
    variant = Variant(dtype=dtype)

    def run() -> None:
        with variant.backends(), torch.no_grad():
            left @ right

    return Subject(
        f'matrix product {dtype}',
        run,
        'machine',
        about=dict(probe='product', dtype=dtype, flops=2 * size**3),
    )


def convolution_probe(
    dtype: str,
    device: str,
    videos: int,
    channels: int,
    kernel_size: int,
    cells: int,
    training: bool,
) -> Subject:
    """One layer of the moment encoder without anything around it: its convolution alone.

    Args:
        dtype (str): As of `Variant`.
        device (str): Where.
        videos (int): B.
        channels (int): H.
        kernel_size (int): K.
        cells (int): Side of the layer's output.
        training (bool): Forward and backward, else forward.
    """
    kind = torch.bfloat16 if dtype == 'bf16' else torch.float32
    variant = Variant(dtype=dtype)
    side = cells + kernel_size - 1
    inputs = torch.randn(
        videos, channels, side, side, device=device, dtype=kind, requires_grad=training
    )
    weight = torch.randn(
        channels,
        channels,
        kernel_size,
        kernel_size,
        device=device,
        dtype=kind,
        requires_grad=training,
    )
    output = torch.randn(videos, channels, cells, cells, device=device, dtype=kind)

    def run() -> None:
        with variant.backends(), torch.set_grad_enabled(training):
            result = F.conv2d(inputs, weight)
            if training:
                torch.autograd.grad(result, (inputs, weight), output)

    flops = 2 * videos * cells**2 * channels**2 * kernel_size**2 * (3 if training else 1)
    return Subject(
        f'convolution {dtype}',
        run,
        'machine',
        about=dict(probe='convolution', dtype=dtype, flops=flops),
    )
