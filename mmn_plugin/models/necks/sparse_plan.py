"""Which cells of the moment map a convolution needs, and in which tiles it computes them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 3  # side of the output tiles that the order keeps together, see TileTransform


class CellSet:
    """The active cells of an n x n map, tile by tile of ``TILE`` x ``TILE`` cells.

    Values of the cells are held as rows (A + 1, B, H) in this order; the last row is zero and
    stands for every cell that is not active.

    Args:
        mask (np.ndarray): (n, n) bool, the active cells.

    Attributes:
        size (int): Side of the map (n).
        rows, columns (np.ndarray): (A,) place of each active cell.
        index (np.ndarray): (n, n) row of each cell, A where it is not active.
    """

    def __init__(self, mask: np.ndarray):
        self.size = len(mask)
        rows, columns = mask.nonzero()
        order = np.lexsort((columns % TILE, rows % TILE, columns // TILE, rows // TILE))
        self.rows, self.columns = rows[order], columns[order]
        self.index = np.full(mask.shape, len(rows), dtype=np.int64)
        self.index[self.rows, self.columns] = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Row of each cell, ``len(self)`` for those that are not active or outside the map."""
        inside = (rows >= 0) & (rows < self.size) & (columns >= 0) & (columns < self.size)
        found = self.index[rows.clip(0, self.size - 1), columns.clip(0, self.size - 1)]
        return np.where(inside, found, len(self))


@dataclass
class ConvChunk:
    """Indices for T tiles of m x m outputs, reading Q windows of C = (2m - 1)**2 inputs.

    Attributes:
        first, last (int): The output cells of these tiles.
        num_tiles (int): T.
        windows (Tensor): (C, Q) input cells, place by place of the window.
        neighbors (Tensor): (T, S * S) windows that each tile needs; cells where m = 1.
        tile_cells (Tensor): (m * m * T,) output cells of the tiles, position by position.
        cell_places (Tensor): (last - first,) place of each output cell in (m * m * T,).
    """

    first: int
    last: int
    num_tiles: int
    windows: Tensor
    neighbors: Tensor
    tile_cells: Tensor
    cell_places: Tensor

    def neighbor_rows(self, batch_size: int) -> Tensor:
        """(T * B * S * S,) rows of (Q * B, H) that make up (T * B, S * S * H)."""
        if batch_size == 1:
            return self.neighbors.flatten()
        videos = torch.arange(batch_size, device=self.neighbors.device)
        return (self.neighbors[:, None] * batch_size + videos[:, None]).flatten()


class TileTransform:
    """Minimal filtering of Winograd, F(m x m, m x m), m = 1 or 3.

    A kernel of side K is cut into S x S kernels of side m, S = ceil(K / m) (the last ones filled
    up with zeros), and the map into tiles of m x m outputs. Tile and small kernel meet in
    C = (2m - 1)**2 products instead of m**4: both are evaluated at C points as polynomials, the
    products are summed over channels and small kernels, and the outputs are interpolated from
    them (Toom-Cook; the points are 0, 1, -1, 2 and infinity on each axis). For m = 3 that is 25
    products for 9 outputs instead of 81; m = 1 is the definition itself.

    The results are those of the definition to rounding: in float32 the largest error of one layer
    grows from about 4e-7 to 2e-6 of its largest value.

    Args:
        tile (int): m.
        kernel_size (int): K.
    """

    def __init__(self, tile: int, kernel_size: int):
        self.tile = tile
        self.kernel_size = kernel_size
        self.window = 2 * tile - 1  # side of the inputs under a tile and a small kernel
        self.blocks = -(-kernel_size // tile)  # small kernels along an axis (S)
        self.components = self.window**2  # C

    def _evaluation(self, size: int) -> np.ndarray:
        """(2m - 1, size): values of a polynomial with ``size`` coefficients at the points."""
        if self.tile == 1:
            return np.ones((1, 1))
        finite = np.vander([0.0, 1.0, -1.0, 2.0], size, increasing=True)
        return np.concatenate([finite, np.eye(size)[-1:]])

    @cached_property
    def of_windows(self) -> np.ndarray:
        """(C, C): inputs under a tile, row by row, to components."""
        inverse = np.linalg.inv(self._evaluation(self.window))
        interpolation = (6 * inverse).round().T / 6  # its entries are whole sixths
        return np.kron(interpolation, interpolation)

    @cached_property
    def to_tiles(self) -> np.ndarray:
        """(m * m, C): components to the outputs of a tile, row by row."""
        values = self._evaluation(self.tile).T
        return np.kron(values, values)

    @cached_property
    def of_kernels(self) -> np.ndarray:
        """(C, S * S, K * K): a kernel, row by row, to components of its small kernels."""
        points = self._evaluation(self.tile)  # (2m - 1, m)
        axis = np.zeros((self.window, self.blocks, self.blocks * self.tile))
        for block in range(self.blocks):
            axis[:, block, block * self.tile : (block + 1) * self.tile] = points
        axis = axis[..., : self.kernel_size]
        both = np.einsum('cxk,dyl->cdxykl', axis, axis)
        return both.reshape(self.components, self.blocks**2, self.kernel_size**2)


class ConvPlan:
    """Indices of ``out[o] = sum over k of in[o + k - offset] * w[k]`` on active cells.

    Args:
        inputs (CellSet): Active cells of the input map.
        outputs (CellSet): Cells of the output map to compute.
        offset (int): Padding of the input map.
        flipped (bool): Whether w is a flipped kernel, as for gradients. Defaults to False.
        transform (TileTransform): How tiles are computed.
        device (torch.device): Where the indices shall be.
    """

    # Tiles of all videos that are multiplied together. On the CPU that is what the caches like,
    # on others enough to keep them busy.
    ROWS = dict(cpu=1024)
    OTHER_ROWS = 2**14

    def __init__(
        self,
        inputs: CellSet,
        outputs: CellSet,
        offset: int,
        flipped: bool = False,
        *,
        transform: TileTransform,
        device: torch.device,
    ):
        self.inputs, self.outputs = inputs, outputs
        self.offset, self.transform, self.device = offset, transform, device
        self.kernel_matrix = transform.of_kernels
        if flipped:
            self.kernel_matrix = self.kernel_matrix[..., ::-1].copy()
        self._chunks: dict[int, list[ConvChunk]] = {}

    @property
    def full_precision(self) -> bool:
        """Whether products take the weight's precision, as interpolation costs digits."""
        return self.transform.tile > 1

    def chunks(self, batch: int) -> list[ConvChunk]:
        """The output tiles of so many videos in groups, in the order of the output cells."""
        if batch not in self._chunks:
            tiles, tile_of_cell = self._tiles
            step = max(1, self.ROWS.get(self.device.type, self.OTHER_ROWS) // batch)
            self._chunks[batch] = [
                self._chunk(tiles[first : first + step], tile_of_cell, first)
                for first in range(0, len(tiles), step)
            ]
        return self._chunks[batch]

    @cached_property
    def _tiles(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, 2) row and column of every output tile, and (A,) the tile of every output cell."""
        tile = self.transform.tile
        places = np.stack([self.outputs.rows // tile, self.outputs.columns // tile], axis=1)
        if tile == 1:
            return places, np.arange(len(places))
        changes = (places[1:] != places[:-1]).any(axis=1)
        number = np.concatenate([[0], changes.cumsum()])
        return places[np.concatenate([[True], changes])], number

    def _windows(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Q, 2) places of the windows under some tiles; (T, S * S) which of them each needs."""
        blocks = np.arange(self.transform.blocks)
        steps = np.stack(np.meshgrid(blocks, blocks, indexing='ij'), axis=-1).reshape(-1, 2)
        needed = tiles[:, None] + steps  # (T, S * S, 2)
        stride = int(needed.max(initial=0)) + 1
        keys = needed[..., 0] * stride + needed[..., 1]
        unique, place = np.unique(keys, return_inverse=True)
        return np.stack([unique // stride, unique % stride], axis=1), place.reshape(keys.shape)

    def _chunk(self, tiles, tile_of_cell, first_tile) -> ConvChunk:
        first, last = np.searchsorted(tile_of_cell, [first_tile, first_tile + len(tiles)])
        windows, neighbors = self._windows(tiles)
        tile, side = self.transform.tile, self.transform.window
        place = np.arange(side)
        rows = windows[:, 0] * tile + place[:, None] - self.offset  # (side, Q)
        columns = windows[:, 1] * tile + place[:, None] - self.offset
        cells = self.inputs.at(*np.broadcast_arrays(rows[:, None], columns[None]))
        if tile == 1:  # a window is a cell: no need to gather it twice
            neighbors = cells.reshape(-1)[neighbors]
        outputs = self.outputs
        inner = np.arange(tile)
        tile_rows, tile_columns = tiles[:, 0] * tile, tiles[:, 1] * tile
        of_tiles = outputs.at(
            *np.broadcast_arrays(tile_rows + inner[:, None, None], tile_columns + inner[:, None])
        )
        position = (outputs.rows[first:last] % tile) * tile + outputs.columns[first:last] % tile
        places = position * len(tiles) + tile_of_cell[first:last] - first_tile
        return ConvChunk(
            first=int(first),
            last=int(last),
            num_tiles=len(tiles),
            windows=as_tensor(cells.reshape(side * side, -1), self.device),
            neighbors=as_tensor(neighbors, self.device),
            tile_cells=as_tensor(of_tiles.reshape(-1), self.device),
            cell_places=as_tensor(places, self.device),
        )


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """On a device; a training can save it for backward, whatever mode it was made in."""
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)


class EncoderPlan:
    """Active cells and indices of all layers.

    In training every cell with a valid one under its kernel is active, since BatchNorm's
    statistics see them all. Where the statistics are given, cells that no moment depends on are
    left out as well.

    Args:
        moments (np.ndarray): (P,) place of every moment in the N x N map laid out row by row.
        divisors (list[np.ndarray]): (n, n) divisors of each layer's outputs, infinite where a cell
            is not valid.
        paddings (list[int]): Padding of each layer; 0 but for the first.
        kernel_size (int): Side of the kernels (K).
        all_valid (bool): Whether every valid cell is computed.
        device (torch.device): Where the indices shall be.
        conv_plan (Callable): Makes a convolution's plan of its inputs, outputs (both `CellSet`),
            padding, and of whether kernels are flipped.

    Attributes:
        cells (list[CellSet]): L + 1 sets, of the moments and of each layer's outputs.
        forward (list): Each layer's convolution.
        backward (list): Each layer's gradient with respect to its inputs.
        divisors (list[Tensor]): (A + 1,) divisors of each layer's outputs, infinite in the last
            row.
    """

    def __init__(
        self,
        moments: np.ndarray,
        divisors: list[np.ndarray],
        paddings: list[int],
        kernel_size: int,
        all_valid: bool,
        device: torch.device,
        conv_plan: Callable[[CellSet, CellSet, int, bool], Any],
    ):
        valid = [np.isfinite(divisor) for divisor in divisors]
        of_moments = np.zeros(valid[-1].shape, dtype=bool)
        of_moments.flat[moments] = True
        if not all_valid:
            valid = _needed(valid, of_moments, kernel_size)
        self.cells = [CellSet(mask) for mask in [of_moments, *valid]]
        self._entry = as_tensor(np.argsort(self.cells[0].index.flat[moments]), device)  # (P,)
        self._exit = as_tensor(self.cells[-1].index.flat[moments], device)  # (P,)
        rows = (
            np.append(divisor[cells.rows, cells.columns], np.inf).astype(np.float32)
            for divisor, cells in zip(divisors, self.cells[1:], strict=True)
        )
        self.divisors = [as_tensor(row, device) for row in rows]
        layers = list(zip(self.cells, self.cells[1:], paddings, strict=False))
        self.forward = [
            conv_plan(inputs, outputs, padding, False) for inputs, outputs, padding in layers
        ]
        self.backward = [
            conv_plan(outputs, inputs, kernel_size - 1 - padding, True)
            for inputs, outputs, padding in layers
        ]

    def enter(self, moments: Tensor) -> Tensor:
        """(B, H, P) to rows of the first cells, (P + 1, B, H); the last is zero."""
        rows = moments.permute(2, 0, 1).index_select(0, self._entry)
        return F.pad(rows, (0, 0, 0, 0, 0, 1))

    def leave(self, values: Tensor) -> Tensor:
        """Rows of the last cells, (A + 1, B, H), to (B, H, P)."""
        return values.index_select(0, self._exit).permute(1, 2, 0)


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


class NormInputs(NamedTuple):
    """Inputs of `sparse_norm`, kept for backward instead of its output, which they give again.

    Attributes:
        values (Tensor): (A + 1, B, H) of the convolution, without bias.
        weight, shift (Tensor): (H,) of BatchNorm.
        mean, scale (Tensor): (H,) its statistics: the mean without bias, 1 / standard deviation.
        divisor (Tensor): (A + 1,) what each cell is divided by.
    """

    values: Tensor
    weight: Tensor
    shift: Tensor
    mean: Tensor
    scale: Tensor
    divisor: Tensor

    def normalized(self) -> Tensor:
        """(A + 1, B, H) before ReLU, in the precision of the statistics."""
        scale = self.scale * self.weight
        return torch.addcmul(self.shift - self.mean * scale, self.values.to(scale.dtype), scale)

    def output(self) -> Tensor:
        """(A + 1, B, H) of the layer, in the dtype of the values."""
        return self.normalized().relu_().div_(self.divisor[:, None, None]).to(self.values.dtype)
