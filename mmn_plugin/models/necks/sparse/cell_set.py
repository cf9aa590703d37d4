"""Some cells of a square map, in a fixed order."""

import numpy as np

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
