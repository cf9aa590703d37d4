"""Which entries of a similarity matrix are no negatives, kept as the few pairs that differ."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class PairMask:
    """Masked entries of an (N, M, L) array of logits, as n pairs (row, block) of L entries each.

    Pairs are few (a sentence and the videos it knows something about), the array is large, so the
    pairs are listed on the host, where they come from, and no array of its size is ever made.

    Attributes:
        rows (np.ndarray): (n,) int64 in [0, N).
        blocks (np.ndarray): (n,) int64 in [0, M), never falling; no pair occurs twice.
        masked (Tensor): (n, L) bool, on the logits' device.
    """

    rows: np.ndarray
    blocks: np.ndarray
    masked: Tensor

    @classmethod
    def of(cls, rows: np.ndarray, blocks: np.ndarray, masked: Tensor) -> 'PairMask':
        """From pairs in any order; where a pair occurs several times, any mask counts."""
        stride = int(rows.max(initial=0)) + 1
        pairs, place = np.unique(blocks.astype(np.int64) * stride + rows, return_inverse=True)
        place = torch.from_numpy(place).to(masked.device, non_blocking=True)
        count = masked.new_zeros(len(pairs), masked.shape[1], dtype=torch.int32)
        count.index_add_(0, place, masked.int())
        return cls(pairs % stride, pairs // stride, count > 0)

    def fill_(self, logits: Tensor, first: int, value: float) -> None:
        """Write ``value`` over the masked entries of some blocks.

        Args:
            logits (Tensor): (N, m, L), the blocks from ``first`` on; changed in place.
            first (int): Index of the first block.
            value (float): What to write.
        """
        begin, end = np.searchsorted(self.blocks, [first, first + logits.shape[1]])
        if begin == end:
            return
        rows, blocks = (
            torch.from_numpy(index).to(logits.device, non_blocking=True)
            for index in (self.rows[begin:end], self.blocks[begin:end] - first)
        )
        logits[rows, blocks] = logits[rows, blocks].masked_fill(self.masked[begin:end], value)
