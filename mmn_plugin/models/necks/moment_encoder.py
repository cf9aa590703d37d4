"""Context between neighbouring moments."""
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.structures import MomentGrid


class MomentEncoder(BaseModule):
    """Convolutions over the N x N moment map (the "proposal convolution" of 2D-TAN and MMN).

    Only the first layer is padded, by what all layers together eat, so the map first grows and
    ends at N x N. After every layer: BatchNorm, ReLU, then division by the number of valid cells
    under the kernel; a cell without any becomes 0 and is invalid for the next layer.

    As in the published code BatchNorm's training statistics run over all cells of the grown map,
    the invalid ones (which hold the bare bias) included.

    Args:
        grid (MomentGrid): The moments that exist.
        channels (int): Size of the features (H).
        kernel_size (int): Side of the square kernels (K).
        num_layers (int): Layers (L).

    Raises:
        ValueError: If kernel size and depth make the total padding odd.
    """

    def __init__(self, grid: MomentGrid, channels: int, kernel_size: int, num_layers: int):
        super().__init__()
        if (kernel_size - 1) * num_layers % 2:
            raise ValueError(f'kernel_size={kernel_size} with num_layers={num_layers} cannot be '
                             'padded evenly: use an odd kernel or an even number of layers')
        padding = (kernel_size - 1) * num_layers // 2
        self.num_clips = grid.num_clips
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=0 if layer else padding)
            for layer in range(num_layers))
        self.bn = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_layers))
        for layer, weight in enumerate(self._cell_weights(grid, kernel_size, padding)):
            self.register_buffer(f'cell_weight_{layer}', weight, persistent=False)
        self.register_buffer('cells', grid.starts * grid.num_clips + grid.ends, persistent=False)

    def _cell_weights(self, grid: MomentGrid, kernel_size: int, padding: int) -> list[Tensor]:
        """1 / (valid cells under the kernel), 0 where there are none, for each layer's output."""
        weights = []
        valid = grid.mask[None, None].to(torch.float32)
        kernel = torch.ones(1, 1, kernel_size, kernel_size)
        for layer in range(len(self.convs)):
            count = F.conv2d(valid, kernel, padding=0 if layer else padding).round()
            valid = (count > 0).to(torch.float32)
            weights.append(valid / count.clamp(min=1))
        return weights

    def forward(self, moments: Tensor) -> Tensor:
        """Encode.

        Args:
            moments (Tensor): (B, H, P).

        Returns:
            Tensor: (B, H, P).
        """
        size = self.num_clips
        dense = moments.new_zeros(*moments.shape[:2], size * size)
        hidden = dense.index_copy(2, self.cells, moments)
        hidden = hidden.unflatten(2, (size, size))  # (B, H, N, N)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.bn, strict=True)):
            # grows to (B, H, N + (K - 1)(L / 2 - 1), ...) at the first layer, then shrinks
            hidden = norm(conv(hidden)).relu() * getattr(self, f'cell_weight_{layer}')
        return hidden.flatten(2)[..., self.cells]  # (B, H, P)
