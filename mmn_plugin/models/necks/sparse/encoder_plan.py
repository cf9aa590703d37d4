"""Which cells the layers of the moment encoder compute."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cell_set import CellSet
from .conv_plan import ConvPlan
from .tile_transform import TileTransform


class EncoderPlan:
    """Active cells and indices of all layers.

    In training every cell with a valid one under its kernel is active, since BatchNorm's
    statistics see them all. Where the statistics are given, cells that no moment depends on are
    left out as well.

    Args:
        moments (np.ndarray): (P,) place of every moment in the N x N map laid out row by row.
        valid (list[np.ndarray]): (n, n) masks of each layer's valid outputs.
        paddings (list[int]): Padding of each layer; 0 but for the first.
        kernel_size (int): Side of the kernels (K).
        all_valid (bool): Whether every valid cell is computed.
        tile (int): Side of the tiles, see :class:`TileTransform`.

    Attributes:
        cells (list[CellSet]): L + 1 sets, of the moments and of each layer's outputs.
        forward (list[ConvPlan]): Each layer's convolution.
        backward (list[ConvPlan]): Each layer's gradient with respect to its inputs.
    """

    def __init__(
        self,
        moments: np.ndarray,
        valid: list[np.ndarray],
        paddings: list[int],
        kernel_size: int,
        all_valid: bool,
        tile: int,
    ):
        self._moments = moments
        of_moments = np.zeros(valid[-1].shape, dtype=bool)
        of_moments.flat[moments] = True
        if not all_valid:
            valid = _needed(valid, of_moments, kernel_size)
        self.cells = [CellSet(mask) for mask in [of_moments, *valid]]
        transform = TileTransform(tile, kernel_size)
        layers = list(zip(self.cells, self.cells[1:], paddings, strict=False))
        self.forward = [
            ConvPlan(inputs, outputs, padding, transform) for inputs, outputs, padding in layers
        ]
        self.backward = [
            ConvPlan(outputs, inputs, kernel_size - 1 - padding, transform, flipped=True)
            for inputs, outputs, padding in layers
        ]
        self._on_device: dict[tuple, Tensor] = {}

    def share(self) -> float:
        """Active cells, of those that a dense encoder computes."""
        return sum(map(len, self.cells[1:])) / sum(cells.size**2 for cells in self.cells[1:])

    def enter(self, moments: Tensor) -> Tensor:
        """(B, H, P) to rows of the first cells, (P + 1, B, H); the last is zero."""
        order = self._cached('enter', moments.device, lambda: np.argsort(self._places(0)))
        return F.pad(moments.permute(2, 0, 1).index_select(0, order), (0, 0, 0, 0, 0, 1))

    def leave(self, values: Tensor) -> Tensor:
        """Rows of the last cells, (A + 1, B, H), to (B, H, P)."""
        order = self._cached('leave', values.device, lambda: self._places(-1))
        return values.index_select(0, order).permute(1, 2, 0)

    def of_cells(self, layer: int, values: Tensor) -> Tensor:
        """(A + 1,) from constants of the whole map (n, n) after a layer, 0 in the last row."""
        cells = self.cells[layer]
        return self._cached(
            layer,
            values.device,
            lambda: np.append(values.float().cpu().numpy()[cells.rows, cells.columns], 0).astype(
                np.float32
            ),
        )

    def _places(self, layer: int) -> np.ndarray:
        """(P,) row of every moment."""
        return self.cells[layer].index.flat[self._moments]

    def _cached(self, name, device: torch.device, compute) -> Tensor:
        if (name, device) not in self._on_device:
            with torch.inference_mode(False):  # or a training could not save it for backward
                self._on_device[name, device] = torch.from_numpy(compute()).to(device)
        return self._on_device[name, device]


def _needed(valid: list[np.ndarray], moments: np.ndarray, kernel_size: int) -> list[np.ndarray]:
    """The valid cells that the moments depend on, layer by layer."""
    needed = [valid[-1] & moments]
    for mask in valid[-2::-1]:
        inputs = np.zeros_like(mask)
        size = len(needed[0])
        for row, column in np.ndindex(kernel_size, kernel_size):
            inputs[row : row + size, column : column + size] |= needed[0]
        needed.insert(0, mask & inputs)
    return needed
