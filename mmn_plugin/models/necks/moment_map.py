"""Features of all moments from those of the clips."""

from abc import abstractmethod
from itertools import pairwise

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.structures import MomentGrid


class MomentMap(BaseModule):
    """Moment features by a chain of steps over the clips, one step per diagonal of the map.

    Each step lengthens every moment: by one stride within a level (two neighbours become one),
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
