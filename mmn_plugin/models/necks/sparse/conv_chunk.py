"""Some tiles of a sparse convolution."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class ConvChunk:
    """Indices for T tiles of m x m outputs, reading Q windows of C = (2m - 1)**2 inputs.

    Attributes:
        first, last (int): The output cells of these tiles.
        num_tiles (int): T.
        windows (Tensor): (C, Q) input cells, place by place of the window.
        neighbours (Tensor): (T, S * S) windows that each tile needs; cells where m = 1.
        tile_cells (Tensor): (m * m * T,) output cells of the tiles, position by position.
        cell_places (Tensor): (last - first,) place of each output cell in (m * m * T,).
    """

    first: int
    last: int
    num_tiles: int
    windows: Tensor
    neighbours: Tensor
    tile_cells: Tensor
    cell_places: Tensor

    def to(self, device: torch.device) -> 'ConvChunk':
        """The same with its indices on a device."""
        return replace(
            self,
            **{
                field.name: getattr(self, field.name).to(device)
                for field in fields(self)
                if torch.is_tensor(getattr(self, field.name))
            },
        )

    def neighbour_rows(self, batch_size: int) -> Tensor:
        """(T * B * S * S,) rows of (Q * B, H) that make up (T * B, S * S * H)."""
        if batch_size == 1:
            return self.neighbours.flatten()
        videos = torch.arange(batch_size, device=self.neighbours.device)
        return (self.neighbours[:, None] * batch_size + videos[:, None]).flatten()
