"""Convolution of a tile with fewer products than its definition has."""

from functools import cached_property

import numpy as np


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
        if tile not in (1, 3):
            raise ValueError(f'tile is 1 or 3, not {tile}')
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
