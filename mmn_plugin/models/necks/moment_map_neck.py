"""From clips to a map of moments, and their embeddings."""

from abc import abstractmethod
from itertools import pairwise

import torch
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmn_plugin.models.initialization import begin_as_identity
from mmn_plugin.structures import MomentGrid

from .moment_encoder import MomentEncoder
from .tower_pool import interval_weights, pooled


class MomentMap(BaseModule):
    """Moment features by a chain of steps over the clips, one step per diagonal of the map.

    Each step lengthens every moment: by one stride within a level (two neighbors become one),
    and, opening a later level, by two strides of the level before, keeping every other moment
    (three become one).

    Args:
        grid (MomentGrid): The moments that exist.
        channels (int): Size of the features (H).
    """

    def __init__(self, grid: MomentGrid, channels: int):
        super().__init__()
        offsets = grid.offsets()
        strides = [1] + [stride for _, stride in offsets]
        self.convs = nn.ModuleList(
            self.build_step(channels, 2, 1) if stride == before else self.build_step(channels, 3, 2)
            for before, stride in pairwise(strides)
        )
        self.register_buffer('order', self._row_major_order(grid), persistent=False)

    @abstractmethod
    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """A module (B, H, n) -> (B, H, (n - kernel_size) // stride + 1)."""

    @staticmethod
    def _row_major_order(grid: MomentGrid) -> Tensor:
        """(P,) place of each moment of the grid in the diagonals laid one after another."""
        place = torch.full((grid.num_clips, grid.num_clips), -1)
        seen = 0
        for offset, stride in [(0, 1), *grid.offsets()]:
            starts = torch.arange(0, grid.num_clips - offset, stride)
            place[starts, starts + offset] = torch.arange(seen, seen + len(starts))
            seen += len(starts)
        return place[grid.starts, grid.ends]

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the features of the moments.

        Args:
            clips (Tensor): (B, H, N).

        Returns:
            Tensor: (B, H, P).
        """
        diagonals = [clips]
        for step in self.convs:
            diagonals.append(step(diagonals[-1]))
        return torch.cat(diagonals, dim=-1)[..., self.order]  # (B, H, P)


@MODELS.register_module()
class MomentMapPool(MomentMap):
    """A moment's feature is the element-wise maximum of its clips' (2D-TAN's `pool`)."""

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """Max-pooling, which has no weights."""
        return nn.MaxPool1d(kernel_size, stride)


@MODELS.register_module()
class MomentMapConv(MomentMap):
    """A moment's feature is a chain of convolutions, without activation, over its clips
    (2D-TAN's `conv`).
    """

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """A convolution over time."""
        return nn.Conv1d(channels, channels, kernel_size, stride)


@MODELS.register_module()
class MomentMapNeck(BaseModule):
    """2D moment map, its convolutions, and a projection into each joint space.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        channels (int): Size of the clip embeddings (H).
        embed_channels (int): Size of both joint spaces (J).
        kernel_size (int): Side of the moment encoder's kernels (K).
        num_layers (int): Layers of the moment encoder (L).
        moment_map (dict): Config of the map, ``MomentMapPool`` or ``MomentMapConv``. Defaults to
            ``dict(type='MomentMapPool')``.
        features (int): The last channels of the clips are features of this size (D), as
            ``ClipEncoder.keep_features`` appends them. Their mean over a moment, of unit length
            and through a projection that begins as the identity, is added to the contrastive
            embedding (D and J are one size), so that training begins near the features' own space,
            which may tell videos apart. Defaults to 0: there are none.
        **encoder: How the encoder computes: ``conv_mode``, ``strip_rows``, ``memory_format``,
            ``compile``, ``gradient_checkpointing`` of :class:`MomentEncoder`.

    Raises:
        ValueError: If there are features, of another size than the joint spaces.
    """

    def __init__(
        self,
        grid: MomentGrid,
        channels: int,
        embed_channels: int,
        kernel_size: int,
        num_layers: int,
        moment_map: dict | None = None,
        features: int = 0,
        **encoder,
    ):
        super().__init__()
        self.features = features
        if features:
            self.fc_features = nn.Linear(features, embed_channels)
            begin_as_identity(self.fc_features, f'model.neck.features={features}', 'features=0')
            first, last = grid.starts, grid.ends + 1
            weights = interval_weights(first, last, grid.num_clips)  # (P, N)
            self.register_buffer('moment_weights', weights, persistent=False)
        self.moment_map = MODELS.build(
            moment_map or dict(type='MomentMapPool'),
            default_args=dict(grid=grid, channels=channels),
        )
        self.encoder = MomentEncoder(grid, channels, kernel_size, num_layers, **encoder)
        self.fc_iou = nn.Linear(channels, embed_channels)
        self.fc_contrastive = nn.Linear(channels, embed_channels)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embed all moments.

        Args:
            clips (Tensor): (B, H, N), or (B, H + D, N) with features.

        Returns:
            dict[str, Tensor]: ``iou`` and ``contrastive``, each (B, P, J), not normalized.
        """
        clips, features = clips.split([clips.shape[1] - self.features, self.features], dim=1)
        moments = self.encoder(self.moment_map(clips)).transpose(1, 2)  # (B, P, H)
        contrastive = self.fc_contrastive(moments)
        if self.features:
            means = pooled(features.transpose(1, 2), self.moment_weights)  # (B, P, D)
            contrastive = contrastive + self.fc_features(normalize(means, dim=-1))
        return dict(iou=self.fc_iou(moments), contrastive=contrastive)
