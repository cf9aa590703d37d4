"""Clip encoders: with weights, and without."""

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class ClipEncoder(BaseModule):
    """1x1 convolution, ReLU and average pooling over time (MMN, section "Video encoder").

    Args:
        in_channels (int): Size of the input features (D), all feature files together.
        out_channels (int): Size of the clip embeddings (H).
        kernel_size (int): Segments averaged into one clip.
        stride (int): Segments from one clip to the next (R / N).
        keep_features (bool): Append the features, averaged over each clip, for
            ``MomentMapNeck.features``. Defaults to False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        keep_features: bool = False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.keep_features = keep_features
        self.conv = nn.Conv1d(in_channels, out_channels, 1)
        self.pool = nn.AvgPool1d(kernel_size, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Encode.

        Args:
            features (Tensor): (B, R, D).

        Returns:
            Tensor: (B, H, N), or (B, H + D, N) with the features.
        """
        features = features.transpose(1, 2)  # (B, D, R)
        hidden = self.pool(self.conv(features).relu())  # (B, H, N)
        if not self.keep_features:
            return hidden
        return torch.cat([hidden, self.pool(features).to(hidden.dtype)], dim=1)


@MODELS.register_module()
class ClipMeans(BaseModule):
    """Average pooling over time alone: clips stay in the space of the features.

    Args:
        in_channels (int): Size of the input features (D), which is that of the clips as well.
        kernel_size (int): Segments averaged into one clip.
        stride (int): Segments from one clip to the next (R / N).
    """

    def __init__(self, in_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.in_channels = in_channels
        self.pool = nn.AvgPool1d(kernel_size, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(B, R, D) -> (B, D, N)."""
        return self.pool(features.transpose(1, 2))
