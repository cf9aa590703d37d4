"""From clips to a map of moments, and the convolutions on it."""

from abc import abstractmethod
from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.structures import MomentGrid

from .sparse_conv import fast_products, sparse_conv, sparse_norm, workspaces
from .sparse_plan import EncoderPlan


class MomentMap(BaseModule):
    """Moment features by a chain of steps over the clips, one step per diagonal of the map.

    Each step lengthens every moment: by one stride within a level (two neighbors become one),
    and, opening a later level, by two strides of the level before, keeping every other moment
    (three become one).

    Args:
        grid (MomentGrid): The moments that exist.
        channels (int): Size of the features (H).
    """

    def __init__(self, grid: MomentGrid, channels: int):
        super().__init__()
        offsets = grid.offsets()
        strides = [1] + [stride for _, stride in offsets]
        self.convs = nn.ModuleList(
            self.build_step(channels, 2, 1) if stride == before else self.build_step(channels, 3, 2)
            for before, stride in pairwise(strides)
        )
        self.register_buffer('order', self._row_major_order(grid), persistent=False)

    @abstractmethod
    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """A module (B, H, n) -> (B, H, (n - kernel_size) // stride + 1)."""

    @staticmethod
    def _row_major_order(grid: MomentGrid) -> Tensor:
        """(P,) place of each moment of the grid in the diagonals laid one after another."""
        place = torch.full((grid.num_clips, grid.num_clips), -1)
        seen = 0
        for offset, stride in [(0, 1), *grid.offsets()]:
            starts = torch.arange(0, grid.num_clips - offset, stride)
            place[starts, starts + offset] = torch.arange(seen, seen + len(starts))
            seen += len(starts)
        return place[grid.starts, grid.ends]

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the features of the moments.

        Args:
            clips (Tensor): (B, H, N).

        Returns:
            Tensor: (B, H, P).
        """
        diagonals = [clips]
        for step in self.convs:
            diagonals.append(step(diagonals[-1]))
        return torch.cat(diagonals, dim=-1)[..., self.order]  # (B, H, P)


@MODELS.register_module()
class MomentMapPool(MomentMap):
    """A moment's feature is the element-wise maximum of its clips' (2D-TAN's `pool`)."""

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """Max-pooling, which has no weights."""
        return nn.MaxPool1d(kernel_size, stride)


@MODELS.register_module()
class MomentMapConv(MomentMap):
    """A moment's feature is a chain of convolutions, without activation, over its clips
    (2D-TAN's `conv`).
    """

    def build_step(self, channels: int, kernel_size: int, stride: int) -> nn.Module:
        """A convolution over time."""
        return nn.Conv1d(channels, channels, kernel_size, stride)


CONV_MODES = ('auto', 'dense', 'sparse')
# Below, gathering costs more than it saves: measured on 2 CPU cores with kernels of 3 to 9.
SPARSE_CHANNELS = 128


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
        conv_mode (str): ``'dense'`` computes the whole map; ``'sparse'`` its valid cells alone,
            with the same result to rounding and the same weights; ``'auto'`` takes the faster one
            and logs which. Defaults to ``'auto'``.

    Raises:
        ValueError: If kernel size and depth make the total padding odd, or the mode is unknown.
    """

    def __init__(
        self,
        grid: MomentGrid,
        channels: int,
        kernel_size: int,
        num_layers: int,
        conv_mode: str = 'auto',
    ):
        super().__init__()
        if (kernel_size - 1) * num_layers % 2:
            raise InputError(
                f'kernel_size={kernel_size} with num_layers={num_layers} cannot be '
                'padded evenly: use an odd kernel or an even number of layers'
            )
        if conv_mode not in CONV_MODES:
            raise InputError(f'conv_mode={conv_mode!r} is none of {", ".join(CONV_MODES)}')
        padding = (kernel_size - 1) * num_layers // 2
        self.num_clips = grid.num_clips
        self.conv_mode = conv_mode
        self.paddings = [padding] + [0] * (num_layers - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=padding) for padding in self.paddings
        )
        self.bn = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_layers))
        for layer, weight in enumerate(self._cell_weights(grid, kernel_size)):
            self.register_buffer(f'cell_weight_{layer}', weight, persistent=False)
        self.register_buffer('cells', grid.starts * grid.num_clips + grid.ends, persistent=False)
        self._plans: dict[tuple, EncoderPlan] = {}
        self._said = None

    def _cell_weights(self, grid: MomentGrid, kernel_size: int) -> list[Tensor]:
        """1 / (valid cells under the kernel), 0 where there are none, for each layer's output."""
        weights = []
        valid = grid.mask[None, None].to(torch.float32)
        kernel = torch.ones(1, 1, kernel_size, kernel_size)
        for padding in self.paddings:
            count = F.conv2d(valid, kernel, padding=padding).round()
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
        if self.computes_sparse(moments):
            return self._forward_sparse(moments)
        return self._forward_dense(moments)

    def _forward_dense(self, moments: Tensor) -> Tensor:
        size = self.num_clips
        dense = moments.new_zeros(*moments.shape[:2], size * size)
        hidden = dense.index_copy(2, self.cells, moments)
        hidden = hidden.unflatten(2, (size, size))  # (B, H, N, N)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.bn, strict=True)):
            with _freed_casts(moments.device.type):
                # grows to (B, H, N + (K - 1)(L / 2 - 1), ...) at the first layer, then shrinks
                hidden = norm(conv(hidden)).relu()
            # in its own dtype, or under autocast float32 would promote all that follows
            hidden = hidden * getattr(self, f'cell_weight_{layer}').to(hidden.dtype)
        return hidden.flatten(2)[..., self.cells]  # (B, H, P)

    @torch.compiler.disable  # it gathers by plans that a compiler cannot look into
    def _forward_sparse(self, moments: Tensor) -> Tensor:
        device, dtype = moments.device.type, moments.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        plan = self.plan(dtype, moments.device)
        with torch.autocast(device, enabled=False):
            values, source = plan.enter(moments.to(dtype)), None  # (P + 1, B, H)
            for layer, (conv, norm) in enumerate(zip(self.convs, self.bn, strict=True)):
                values = sparse_conv(
                    values, conv.weight, plan.forward[layer], plan.backward[layer], source
                )  # (A + 1, B, H)
                map_cells = plan.cells[layer + 1].size ** 2
                weight = plan.weights[layer]
                values, source = sparse_norm(values, conv.bias, norm, weight, map_cells)
            if torch.is_grad_enabled():  # what comes until backward needs the memory more
                workspaces.clear()
            return plan.leave(values)  # (B, H, P)

    def plan(self, dtype: torch.dtype, device: torch.device) -> EncoderPlan:
        """Which cells are computed, and how, with values of a precision on a device."""
        all_valid = any(norm.training or norm.running_mean is None for norm in self.bn)
        key = self.convs[0].kernel_size[0], all_valid, self.tile(dtype, device.type), device
        if key not in self._plans:
            weights = [getattr(self, f'cell_weight_{i}')[0, 0] for i in range(len(self.convs))]
            weights = [weight.float().cpu().numpy() for weight in weights]
            self._plans[key] = EncoderPlan(self.cells.cpu().numpy(), weights, self.paddings, *key)
        return self._plans[key]

    def tile(self, dtype: torch.dtype, device: str) -> int:
        """Side of the tiles: 1 in 16 bits, which have no digits to spare for interpolation."""
        full = torch.float32, torch.float64
        weight = self.convs[0].weight.dtype  # tiles are computed in it
        return 3 if weight in full and (dtype in full or not fast_products(dtype, device)) else 1

    def __getstate__(self) -> dict:
        """Without the plans, which are made again where they are needed."""
        return super().__getstate__() | dict(_plans={})

    def computes_sparse(self, moments: Tensor) -> bool:
        """Whether moments like these are encoded sparsely; ``'auto'`` says why it is not."""
        if self.conv_mode != 'auto':
            return self.conv_mode == 'sparse'
        reason = self._reason_for_dense(moments)
        choice = f'Moment encoder: {reason or "sparse"}'
        if choice != self._said:
            self._said = choice
            print_log(choice, 'current')
        return reason is None

    def _reason_for_dense(self, moments: Tensor) -> str | None:
        """Why these moments are not encoded sparsely; None if they are."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return 'dense, since it is being compiled or exported'
        if moments.device.type != 'cpu':
            return (
                f"dense on '{moments.device.type}', where the sparse one is not measured; "
                "model.neck.conv_mode='sparse' takes it"
            )
        if moments.shape[1] < SPARSE_CHANNELS:
            return f'dense, which is faster with fewer than {SPARSE_CHANNELS} channels'
        return None


def _freed_casts(device: str):
    """Context in which autocast frees a weight's copy after its use, where no gradient needs it.

    It would keep the copies of all layers to its end, which is half as much memory as the weights,
    though none is used twice.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return nullcontext()
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, cache_enabled=False)


@MODELS.register_module()
class MomentMapNeck(BaseModule):
    """2D moment map, its convolutions, and a projection into each joint space.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        channels (int): Size of the clip embeddings (H).
        embed_channels (int): Size of both joint spaces (J).
        kernel_size (int): Side of the moment encoder's kernels (K).
        num_layers (int): Layers of the moment encoder (L).
        moment_map (dict): Config of the map, ``MomentMapPool`` or ``MomentMapConv``. Defaults to
            ``dict(type='MomentMapPool')``.
        conv_mode (str): How the encoder computes, ``'dense'``, ``'sparse'`` or ``'auto'``; see
            :class:`MomentEncoder`. Defaults to ``'auto'``.
    """

    def __init__(
        self,
        grid: MomentGrid,
        channels: int,
        embed_channels: int,
        kernel_size: int,
        num_layers: int,
        moment_map: dict | None = None,
        conv_mode: str = 'auto',
    ):
        super().__init__()
        self.moment_map = MODELS.build(
            moment_map or dict(type='MomentMapPool'),
            default_args=dict(grid=grid, channels=channels),
        )
        self.encoder = MomentEncoder(grid, channels, kernel_size, num_layers, conv_mode)
        self.fc_iou = nn.Linear(channels, embed_channels)
        self.fc_contrastive = nn.Linear(channels, embed_channels)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Embed all moments.

        Args:
            clips (Tensor): (B, H, N).

        Returns:
            dict[str, Tensor]: ``iou`` and ``contrastive``, each (B, P, J), not normalized.
        """
        moments = self.encoder(self.moment_map(clips)).transpose(1, 2)  # (B, P, H)
        return dict(iou=self.fc_iou(moments), contrastive=self.fc_contrastive(moments))
