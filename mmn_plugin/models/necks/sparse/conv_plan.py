"""Where a sparse convolution finds its inputs."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .cell_set import CellSet
from .conv_chunk import ConvChunk
from .tile_transform import TileTransform


class ConvPlan:
    """Indices of ``out[o] = sum over k of in[o + k - offset] * w[k]`` on active cells.

    Args:
        inputs (CellSet): Active cells of the input map.
        outputs (CellSet): Cells of the output map to compute.
        offset (int): Padding of the input map.
        transform (TileTransform): How tiles are computed.
        flipped (bool): Whether w is a flipped kernel, as for gradients. Defaults to False.
    """

    # Part of a map that a chunk's windows may fill, so that no tensor gets a map's size.
    FILL = 0.75
    # Tiles of all videos that are multiplied together. On the CPU that is what the caches like,
    # on others enough to keep them busy.
    ROWS = dict(cpu=1024)
    OTHER_ROWS = 2**14

    def __init__(
        self,
        inputs: CellSet,
        outputs: CellSet,
        offset: int,
        transform: TileTransform,
        flipped: bool = False,
    ):
        self.inputs, self.outputs = inputs, outputs
        self.offset, self.transform = offset, transform
        self.kernel_matrix = transform.of_kernels
        if flipped:
            self.kernel_matrix = self.kernel_matrix[..., ::-1].copy()
        self._cache: dict[tuple[int, torch.device, int], list[ConvChunk]] = {}

    def chunks(self, values: Tensor, components: int) -> list[ConvChunk]:
        """The output tiles in groups, in the order of the output cells.

        Args:
            values (Tensor): (A + 1, B, H) of the inputs.
            components (int): Components that are held at a time.
        """
        key = values.shape[1], values.device, components
        if key not in self._cache:
            with torch.inference_mode(False):  # a training uses them as well
                self._cache[key] = [chunk.to(values.device) for chunk in self._chunks(*key)]
        return self._cache[key]

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

    def _chunks(self, batch: int, device: torch.device, components: int) -> list[ConvChunk]:
        tiles, tile_of_cell = self._tiles
        at_most = max(1, self.ROWS.get(device.type, self.OTHER_ROWS) // batch)
        chunks, first = [], 0
        while first < len(tiles):
            last = self._last_tile(first, at_most, components)
            cells = np.searchsorted(tile_of_cell, [first, last])
            chunks.append(self._chunk(tiles[first:last], tile_of_cell, first, *cells))
            first = last
        return chunks

    def _last_tile(self, first: int, at_most: int, components: int) -> int:
        """End of the chunk that begins at a tile: as many tiles as the limits leave room for."""
        tiles, _ = self._tiles
        transform = self.transform
        limit = int(self.FILL * max(self.inputs.size, self.outputs.size) ** 2)
        count = max(1, min(at_most, limit // max(transform.blocks**2, components)))
        while count > 1 and transform.tile > 1:
            windows, _ = self._windows(tiles[first : first + count])
            if len(windows) * components <= limit:
                break
            count -= max(1, count // 8)
        return min(first + count, len(tiles))

    def _windows(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Q, 2) places of the windows under some tiles; (T, S * S) which of them each needs."""
        blocks = np.arange(self.transform.blocks)
        steps = np.stack(np.meshgrid(blocks, blocks, indexing='ij'), axis=-1).reshape(-1, 2)
        needed = tiles[:, None] + steps  # (T, S * S, 2)
        stride = int(needed.max(initial=0)) + 1
        keys = needed[..., 0] * stride + needed[..., 1]
        unique, place = np.unique(keys, return_inverse=True)
        return np.stack([unique // stride, unique % stride], axis=1), place.reshape(keys.shape)

    def _chunk(self, tiles, tile_of_cell, first_tile, first, last) -> ConvChunk:
        windows, neighbours = self._windows(tiles)
        tile, side = self.transform.tile, self.transform.window
        place = np.arange(side)
        rows = windows[:, 0] * tile + place[:, None] - self.offset  # (side, Q)
        columns = windows[:, 1] * tile + place[:, None] - self.offset
        cells = self.inputs.at(*np.broadcast_arrays(rows[:, None], columns[None]))
        if tile == 1:  # a window is a cell: no need to gather it twice
            neighbours = cells.reshape(-1)[neighbours]
        outputs = self.outputs
        inner = np.arange(tile)
        tile_rows, tile_columns = tiles[:, 0] * tile, tiles[:, 1] * tile
        of_tiles = outputs.at(
            *np.broadcast_arrays(tile_rows + inner[:, None, None], tile_columns + inner[:, None])
        )
        position = (outputs.rows[first:last] % tile) * tile + outputs.columns[first:last] % tile
        return ConvChunk(
            first=int(first),
            last=int(last),
            num_tiles=len(tiles),
            windows=_tensor(cells.reshape(side * side, -1)),
            neighbours=_tensor(neighbours),
            tile_cells=_tensor(of_tiles.reshape(-1)),
            cell_places=_tensor(position * len(tiles) + tile_of_cell[first:last] - first_tile),
        )


def _tensor(index: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(index))
