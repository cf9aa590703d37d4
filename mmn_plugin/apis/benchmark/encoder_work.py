"""How many floating-point operations the moment encoder's convolutions take."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mmn_plugin.structures import MomentGrid


@dataclass(frozen=True)
class EncoderWork:
    """Cells that each layer computes for one video, and what one cell costs.

    Attributes:
        dense (tuple[int, ...]): Cells of each layer's output, the grown map's all.
        train (tuple[int, ...]): Those with a valid cell under the kernel, all others hold the bias.
        test (tuple[int, ...]): Those among them that a valid cell of the last layer depends on.
        per_cell (int): Operations of one cell of a layer, forward: 2 H^2 K^2.
    """

    dense: tuple[int, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    per_cell: int

    @classmethod
    def of(cls, grid: MomentGrid, channels: int, kernel_size: int, num_layers: int):
        """Count for a moment encoder's settings."""
        padding = (kernel_size - 1) * num_layers // 2
        valid = [grid.mask]
        for layer in range(num_layers):
            valid.append(_reached(valid[-1], kernel_size, 0 if layer else padding))
        needed = [grid.mask]  # from the last layer's output back to the first's
        for layer in reversed(range(1, num_layers)):
            needed.append(_reached(needed[-1], kernel_size, kernel_size - 1) & valid[layer])
        return cls(
            tuple(cells.numel() for cells in valid[1:]),
            tuple(int(cells.sum()) for cells in valid[1:]),
            tuple(int(cells.sum()) for cells in reversed(needed)),
            2 * channels**2 * kernel_size**2,
        )

    def flops(self, videos: int, cells: str, training: bool) -> int:
        """Operations of a batch; backward (by input and by weight) costs twice the forward.

        Args:
            videos (int): B.
            cells (str): ``'dense'``, ``'train'`` or ``'test'``: which cells are counted.
            training (bool): Whether backward counts.
        """
        return videos * sum(getattr(self, cells)) * self.per_cell * (3 if training else 1)


def _reached(cells: torch.Tensor, kernel_size: int, padding: int) -> torch.Tensor:
    """Cells of a convolution's output that have a marked cell under the kernel."""
    return F.max_pool2d(F.pad(cells[None].float(), [padding] * 4), kernel_size, 1)[0] > 0
