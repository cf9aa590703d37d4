"""Convolution on strips of rows, in one dense call for all strips of a map."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sparse_plan import CellSet, as_tensor


class Strip(NamedTuple):
    """Some rows of the output map, and the columns in which they have active cells.

    Attributes:
        row, column (int): First row and column.
        width (int): Columns.
        band (int): Which band it lies in.
        place (int): Its first column in the band.
    """

    row: int
    column: int
    width: int
    band: int = 0
    place: int = 0


def cut_strips(cells: CellSet, rows: int) -> list[Strip]:
    """Strips of so many rows that hold all active cells, from the first row that has one."""
    first = int(cells.rows.min(initial=cells.size))
    strips = []
    for row in range(first, int(cells.rows.max(initial=-1)) + 1, rows):
        columns = cells.columns[(cells.rows >= row) & (cells.rows < row + rows)]
        if len(columns):
            column = int(columns.min())
            strips.append(Strip(row, column, int(columns.max()) + 1 - column))
    return strips


def pack_strips(strips: list[Strip], gap: int) -> tuple[list[Strip], int, int]:
    """Lay strips beside one another in bands of one width, with the fewest cells in all.

    Rows of a triangle are long or short, so that two strips or three fill a band. First fit, by
    falling width, for every width of a band that may be the best.

    Args:
        strips (list[Strip]): What is laid out.
        gap (int): Columns between two strips of a band, which a kernel over both would mix.

    Returns:
        tuple[list[Strip], int, int]: The strips with their places, the number of bands, and their
        width.
    """
    strips = sorted(strips, key=lambda strip: -strip.width)
    widest = strips[0].width
    layouts = (_first_fit(strips, gap, width) for width in range(widest, 2 * widest + gap + 1))
    return min(layouts, key=lambda layout: layout[1] * layout[2])


def _first_fit(strips: list[Strip], gap: int, width: int) -> tuple[list[Strip], int, int]:
    """The same for one width at most."""
    ends, placed = [], []
    for strip in strips:
        fits = (band for band, end in enumerate(ends) if end + gap + strip.width <= width)
        band = next(fits, len(ends))
        if band == len(ends):
            ends.append(-gap)
        place = ends[band] + gap
        ends[band] = place + strip.width
        placed.append(strip._replace(band=band, place=place))
    return placed, len(ends), max(ends)


class StripIndices(NamedTuple):
    """Rows of B videos' cells, (A + 1) * B, and of what is computed, D * B * h * W.

    Attributes:
        windows (Tensor): (D, B, h + K - 1, W + K - 1) row of the inputs at each place.
        cells (Tensor): (D, B, h, W) row of the outputs at each place.
        places (Tensor): (A' * B,) row of what is computed for each output.
    """

    windows: Tensor
    cells: Tensor
    places: Tensor


class StripPlan:
    """Indices of ``out[o] = sum over k of in[o + k - offset] * w[k]`` on strips of the output map.

    The windows that the strips need, halo of K - 1 rows and columns included, are gathered into
    the images of one batch (several strips beside one another in each, see `pack_strips`), and the
    active cells from the result of one dense convolution: one call per layer, whose size keeps a
    GPU busy, where a call per strip would not. Every cell is read at the places that need it, so
    neither direction has to add up what strips share, or to set anything to zero first.

    Args:
        inputs (CellSet): Active cells of the input map.
        outputs (CellSet): Cells of the output map to compute.
        offset (int): Padding of the input map.
        flipped (bool): Whether w is a flipped kernel, as for gradients. Defaults to False.
        kernel_size (int): Side of the kernels (K).
        rows (int): Rows of a strip (h).
        device (torch.device): Where the indices shall be.

    Attributes:
        shape (tuple[int, int, int]): Bands (D), rows (h) and columns (W) of the computed output.
        num_cells (int): Cells of a video that are computed, active or not (D * h * W).
    """

    full_precision = False

    def __init__(
        self,
        inputs: CellSet,
        outputs: CellSet,
        offset: int,
        flipped: bool = False,
        *,
        kernel_size: int,
        rows: int,
        device: torch.device,
    ):
        self.inputs, self.outputs, self.flipped = inputs, outputs, flipped
        halo = kernel_size - 1
        strips, bands, width = pack_strips(cut_strips(outputs, rows), halo)
        self.shape = bands, rows, width
        windows = np.full((bands, rows + halo, width + halo), len(inputs))
        cells = np.full(self.shape, len(outputs))
        for strip in strips:
            start, stop = strip.place, strip.place + strip.width
            down = strip.row + np.arange(rows + halo)[:, None]
            across = strip.column + np.arange(strip.width + halo)
            windows[strip.band, :, start : stop + halo] = inputs.at(down - offset, across - offset)
            cells[strip.band, :, start:stop] = outputs.at(down[:rows], across[: strip.width])
        self._windows, self._cells, self._device = windows, cells, device
        self.num_cells = cells.size
        self._indices: dict[int, StripIndices] = {}

    def indices(self, batch: int) -> StripIndices:
        """Where so many videos find their rows, which are laid out cell by cell."""
        if batch not in self._indices:
            videos = np.arange(batch)[:, None, None]
            windows, cells = (
                each[:, None] * batch + videos for each in (self._windows, self._cells)
            )  # (D, B, ...)
            places = np.empty((len(self.outputs) + 1) * batch, dtype=np.int64)
            places[cells.reshape(-1)] = np.arange(cells.size)
            arrays = windows, cells, places[:-batch]
            self._indices[batch] = StripIndices(*(as_tensor(each, self._device) for each in arrays))
        return self._indices[batch]


class StripProducts:
    """A convolution as one of the packed strips.

    Args:
        plan (StripPlan): Where outputs find their inputs.
        weight (Tensor): (H, H', K, K), or a transpose of such.
        take (Callable): Gives memory for what is computed on the way, see `Workspaces`.
        memory_format (torch.memory_format): Layout of the images. Defaults to channels-last, which
            is that of the cells.
    """

    def __init__(
        self,
        plan: StripPlan,
        weight: Tensor,
        take: Callable[..., Tensor],
        memory_format: torch.memory_format = torch.channels_last,
    ):
        self.plan, self.weight, self.take = plan, weight, take
        self.memory_format = memory_format

    def convolve(self, values: Tensor) -> Tensor:
        """(A + 1, B, H) to (A' + 1, B, H')."""
        weight = self.weight.transpose(0, 1)  # (H', H, K, K)
        weight = weight.flip(2, 3) if self.plan.flipped else weight
        indices = self.plan.indices(values.shape[1])
        images = self.gather('windows', values, indices.windows)
        computed = F.conv2d(images, weight.to(values.dtype))  # (D * B, H', h, W)
        rows = computed.permute(0, 2, 3, 1).reshape(-1, len(weight))  # (D * B * h * W, H')
        result = values.new_zeros(len(self.plan.outputs) + 1, values.shape[1], len(weight))
        torch.index_select(rows, 0, indices.places, out=result[:-1].flatten(0, 1))
        return result

    def weight_gradient(self, values: Tensor, gradient: Tensor) -> Tensor:
        """(H', H, K, K) from values (A + 1, B, H) and the result's gradient (A' + 1, B, H')."""
        indices = self.plan.indices(values.shape[1])
        images = self.gather('windows', values, indices.windows)
        of_images = self.gather('cells', gradient, indices.cells)
        found = torch.nn.grad.conv2d_weight(images, self.weight.shape, of_images)
        return found.to(self.weight.dtype)

    def gather(self, name: str, values: Tensor, index: Tensor) -> Tensor:
        """Rows of (A + 1, B, H) at (D, B, r, c), as images (D * B, H, r, c)."""
        channels = values.shape[2]
        images = self.take(name, (index.numel(), channels), values)
        torch.index_select(values.flatten(0, 1), 0, index.flatten(), out=images)
        images = images.view(-1, *index.shape[2:], channels).permute(0, 3, 1, 2)
        return images.contiguous(memory_format=self.memory_format)
