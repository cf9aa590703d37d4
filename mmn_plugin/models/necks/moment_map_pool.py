"""Moment features by max-pooling."""

from mmaction.registry import MODELS
from torch import nn

from .moment_map import MomentMap


@MODELS.register_module()
class MomentMapPool(MomentMap):
    """A moment's feature is the element-wise maximum of its clips' (2D-TAN's `pool`)."""

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """Max-pooling, which has no weights."""
        return nn.MaxPool1d(kernel_size, stride)
