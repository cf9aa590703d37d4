"""What a layer's output is computed from."""

from typing import NamedTuple

import torch
from torch import Tensor


class NormInputs(NamedTuple):
    """Inputs of `sparse_norm`, kept for backward instead of its output, which they give again.

    Attributes:
        values (Tensor): (A + 1, B, H) of the convolution, without bias.
        weight, shift (Tensor): (H,) of BatchNorm.
        mean, scale (Tensor): (H,) its statistics: the mean without bias, 1 / standard deviation.
        cell_weight (Tensor): (A + 1,) factor of each cell.
    """

    values: Tensor
    weight: Tensor
    shift: Tensor
    mean: Tensor
    scale: Tensor
    cell_weight: Tensor

    def normalised(self) -> Tensor:
        """(A + 1, B, H) before ReLU, in the precision of the statistics."""
        scale = self.scale * self.weight
        return torch.addcmul(self.shift - self.mean * scale, self.values.to(scale.dtype), scale)

    def output(self) -> Tensor:
        """(A + 1, B, H) of the layer, in the dtype of the values."""
        return self.normalised().relu_().mul_(self.cell_weight[:, None, None]).to(self.values.dtype)
