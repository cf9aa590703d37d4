"""Moment features by stacked convolutions."""

from mmaction.registry import MODELS
from torch import nn

from .moment_map import MomentMap


@MODELS.register_module()
class MomentMapConv(MomentMap):
    """A moment's feature is a chain of convolutions, without activation, over its clips
    (2D-TAN's `conv`).
    """

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """A convolution over time."""
        return nn.Conv1d(channels, channels, kernel_size, stride)
