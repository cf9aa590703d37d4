"""Convolutions on the map of moments, and the ways to compute them."""

import logging
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmn_plugin.errors import InputError
from mmn_plugin.models.pieces import copied_statistics, with_attributes
from mmn_plugin.structures import MomentGrid

from .sparse_conv import (
    KeptKernels,
    TileProducts,
    fast_products,
    sparse_conv,
    sparse_norm,
    workspaces,
)
from .sparse_plan import ConvPlan, EncoderPlan, TileTransform
from .strip_conv import StripPlan, StripProducts

CONV_MODES = ('auto', 'dense', 'sparse', 'strips')
MEMORY_FORMATS = ('contiguous_format', 'channels_last')
# Below, gathering costs more than it saves: measured on 2 CPU cores with kernels of 3 to 9.
SPARSE_CHANNELS = 128
# Most that an encoder may keep for inference on the CPU; published sizes take 800 to 950 MB.
KEPT_BYTES = 2**30
# Multiply-adds that strips must save per layer of a forward pass: they take some 25 operators
# more, of 5 us; a GPU of 400 TFLOP/s (16 bits) multiplies so often meanwhile. Not measured.
STRIP_SAVING = 25 * 10**9


class MomentEncoder(BaseModule):
    """Convolutions over the N x N moment map (the "proposal convolution" of 2D-TAN and MMN).

    Only the first layer is padded, by what all layers together eat, so the map first grows and
    ends at N x N. After every layer: BatchNorm, ReLU, then division by the number of valid cells
    under the kernel; a cell without any becomes 0 and is invalid for the next layer.

    As in the published code BatchNorm's training statistics run over all cells of the grown map,
    the invalid ones (which hold the bare bias) included.

    All modes give the same result to rounding, with the same weights.

    Args:
        grid (MomentGrid): The moments that exist.
        channels (int): Size of the features (H).
        kernel_size (int): Side of the square kernels (K).
        num_layers (int): Layers (L).
        conv_mode (str): ``'dense'`` computes the whole map; ``'sparse'`` its valid cells alone;
            ``'strips'`` dense strips of rows around them; ``'auto'`` takes the fastest one and
            logs which and why. Defaults to ``'auto'``.
        strip_rows (int): Rows of a strip. Defaults to 4.
        memory_format (str, optional): Layout of the maps, ``'contiguous_format'`` or
            ``'channels_last'``, dense or in strips; weights keep theirs. Defaults to None: dense
            maps are contiguous, strips channels-last, which is how they are gathered.
        compile (bool | dict): Compile the dense encoder with :func:`torch.compile`, which fuses
            bias, BatchNorm, ReLU and division; a dict holds its arguments. What cannot be compiled
            is computed without, after one message. ``'auto'`` is then dense. Defaults to False.
        gradient_checkpointing (bool): Keep one map per layer for the backward pass of the dense
            encoder, the convolution's result, and compute BatchNorm, ReLU and division again;
            no convolution is computed twice. The other modes always do. Defaults to False.

    Raises:
        ValueError: If kernel size and depth make the total padding odd, a value is none of those
            above, or what shall be compiled is not dense or keeps one map per layer.
    """

    def __init__(
        self,
        grid: MomentGrid,
        channels: int,
        kernel_size: int,
        num_layers: int,
        conv_mode: str = 'auto',
        strip_rows: int = 4,
        memory_format: str | None = None,
        compile: bool | dict = False,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if (kernel_size - 1) * num_layers % 2:
            raise InputError(
                f'kernel_size={kernel_size} with num_layers={num_layers} cannot be '
                'padded evenly: use an odd kernel or an even number of layers'
            )
        _require_one_of('conv_mode', conv_mode, CONV_MODES)
        _require_one_of('memory_format', memory_format, (None, *MEMORY_FORMATS))
        if not isinstance(strip_rows, int) or strip_rows < 1:
            raise InputError(f'strip_rows={strip_rows!r}; give a whole number of 1 or more')
        if not isinstance(compile, bool | dict):
            raise InputError(f"compile={compile!r}; give True, False or torch.compile's arguments")
        if not isinstance(gradient_checkpointing, bool):
            raise InputError(
                f'gradient_checkpointing={gradient_checkpointing!r}; give True or False'
            )
        if compile is not False and (conv_mode not in ('auto', 'dense') or gradient_checkpointing):
            raise InputError(
                'compile is for the dense encoder without gradient_checkpointing; set '
                "compile=False (conv_mode='strips' keeps one map per layer by itself)"
            )
        padding = (kernel_size - 1) * num_layers // 2
        self.num_clips = grid.num_clips
        self.conv_mode, self.strip_rows = conv_mode, strip_rows
        self.memory_format = memory_format
        self.compile_settings = dict(fullgraph=True) if compile is not False else None
        if isinstance(compile, dict):
            self.compile_settings.update(compile)
        self.gradient_checkpointing = gradient_checkpointing
        self.paddings = [padding] + [0] * (num_layers - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, kernel_size, padding=padding) for padding in self.paddings
        )
        self.bn = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_layers))
        divisors = self._divisors(grid, kernel_size)
        for layer, divisor in enumerate(divisors):
            self.register_buffer(f'divisor_{layer}', divisor, persistent=False)
        cells = grid.starts * grid.num_clips + grid.ends
        self.register_buffer('cells', cells, persistent=False)
        # for the plans, which are made on the host
        self._layout = cells.numpy(), [divisor[0, 0].numpy() for divisor in divisors]
        self._plans: dict[tuple, EncoderPlan] = {}
        self._said: set[str] = set()
        self._kept: list[KeptKernels] = []
        self._compiled, self._rehearsed = None, set()

    def _divisors(self, grid: MomentGrid, kernel_size: int) -> list[Tensor]:
        """Valid cells under the kernel, infinite where there are none, for each layer's output.

        Exact in 16 bits as well, up to 256 cells, which their reciprocals are not.
        """
        divisors = []
        valid = grid.mask[None, None].to(torch.float32)
        kernel = torch.ones(1, 1, kernel_size, kernel_size)
        for padding in self.paddings:
            count = F.conv2d(valid, kernel, padding=padding).round()
            valid = (count > 0).to(torch.float32)
            divisors.append(count.masked_fill(count == 0, torch.inf))
        return divisors

    def forward(self, moments: Tensor) -> Tensor:
        """Encode.

        Args:
            moments (Tensor): (B, H, P).

        Returns:
            Tensor: (B, H, P).
        """
        mode = self.mode_for(moments)
        if mode != 'dense':
            return self._forward_cells(moments, mode)
        if self.compile_settings is not None and not _is_traced():
            return self._forward_compiled(moments)
        return self._forward_dense(moments)

    def _forward_dense(self, moments: Tensor) -> Tensor:
        hidden = self._map_of(moments)  # (B, H, N, N)
        again = self.gradient_checkpointing and torch.is_grad_enabled() and not _is_traced()
        with _freed_casts(moments.device.type):
            # grows to (B, H, N + (K - 1)(L / 2 - 1), ...) at the first layer, then shrinks
            hidden = self.convs[0](hidden)
            for layer, norm in enumerate(self.bn):
                if again:
                    contexts = partial(_passes_of_checkpoint, norm)
                    settings = dict(use_reentrant=False, preserve_rng_state=False)
                    settings['context_fn'] = contexts
                    hidden = checkpoint(self._to_next_conv, layer, hidden, **settings)
                else:
                    hidden = self._to_next_conv(layer, hidden)
        return hidden.flatten(2)[..., self.cells]  # (B, H, P)

    def _map_of(self, moments: Tensor) -> Tensor:
        """(B, H, P) to (B, H, N, N), 0 where there is no moment."""
        size = self.num_clips
        if self.memory_format == 'channels_last':
            dense = moments.new_zeros(len(moments), size * size, moments.shape[1])
            dense = dense.index_copy(1, self.cells, moments.transpose(1, 2)).transpose(1, 2)
        else:
            dense = moments.new_zeros(*moments.shape[:2], size * size)
            dense = dense.index_copy(2, self.cells, moments)
        return dense.unflatten(2, (size, size))

    def _to_next_conv(self, layer: int, hidden: Tensor) -> Tensor:
        """A convolution's result to the next one's; after the last layer, to the result."""
        hidden = self.bn[layer](hidden).relu()
        # in its own dtype, or under autocast float32 would promote all that follows
        hidden = hidden / getattr(self, f'divisor_{layer}').to(hidden.dtype)
        return self.convs[layer + 1](hidden) if layer + 1 < len(self.convs) else hidden

    @torch.compiler.disable  # what follows decides whether to compile
    def _forward_compiled(self, moments: Tensor) -> Tensor:
        """The dense encoder compiled; without compilation where that fails."""
        try:
            if self._compiled is None:
                self._compiled = torch.compile(self._forward_dense, **self.compile_settings)
            if torch.is_grad_enabled() not in self._rehearsed:
                self._rehearse(moments)
                self._rehearsed.add(torch.is_grad_enabled())
            return self._compiled(moments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any compiler; an error of the encoder itself comes again
            self.compile_settings = self._compiled = None
            reason = ' '.join(f'{type(error).__name__}: {error}'.splitlines()[:2])
            text = f'Moment encoder: computes without torch.compile, which failed: {reason}'
            print_log(text, 'current', logging.WARNING)
            return self._forward_dense(moments)

    def _rehearse(self, moments: Tensor) -> None:
        """Compile, the backward pass as well, while there still is a way back."""
        before = [buffer.clone() for buffer in self.bn.buffers()]
        given = moments.detach().requires_grad_(moments.requires_grad)
        try:
            result = self._compiled(given)
            inputs = [one for one in (given, *self.parameters()) if one.requires_grad]
            if result.requires_grad:
                torch.autograd.grad(result.sum(), inputs)
        finally:
            for buffer, value in zip(self.bn.buffers(), before, strict=True):
                buffer.copy_(value)

    @torch.compiler.disable  # it gathers by plans that a compiler cannot look into
    def _forward_cells(self, moments: Tensor, mode: str) -> Tensor:
        device, dtype = moments.device.type, moments.dtype
        if autocasts := _autocasts(device):
            dtype = torch.get_autocast_dtype(device)
        plan = self.plan(dtype, moments.device, mode)
        products = self._products(plan, mode, dtype)
        with torch.autocast(device, enabled=False) if autocasts else nullcontext():
            values, source = plan.enter(moments.to(dtype)), None  # (P + 1, B, H)
            for layer, (conv, norm) in enumerate(zip(self.convs, self.bn, strict=True)):
                plans = plan.forward[layer], plan.backward[layer]
                values = sparse_conv(
                    values, conv.weight, *plans, source, products[layer]
                )  # (A + 1, B, H)
                map_cells = plan.cells[layer + 1].size ** 2
                divisor = plan.divisors[layer]
                values, source = sparse_norm(values, conv.bias, norm, divisor, map_cells)
            if torch.is_grad_enabled():  # what comes until backward needs the memory more
                workspaces.clear()
            return plan.leave(values)  # (B, H, P)

    def _products(self, plan: EncoderPlan, mode: str, dtype: torch.dtype) -> list:
        """What computes each layer's convolution."""
        if mode == 'strips':
            memory_format = getattr(torch, self.memory_format or 'channels_last')
            return [partial(StripProducts, memory_format=memory_format)] * len(self.convs)
        weight, transform = self.convs[0].weight, plan.forward[0].transform
        size = len(self.convs) * transform.of_kernels[..., 0].size * weight[..., 0, 0].nbytes
        inference = not torch.is_grad_enabled() and not self.training and not weight.is_inference()
        if (
            not inference
            or weight.device.type != 'cpu'
            or dtype != weight.dtype
            or size > KEPT_BYTES
        ):
            self._kept = []
            return [TileProducts] * len(self.convs)
        self._kept = self._kept or [KeptKernels() for _ in self.convs]
        return [partial(TileProducts, kept=kept) for kept in self._kept]

    def plan(self, dtype: torch.dtype, device: torch.device, mode: str = 'sparse') -> EncoderPlan:
        """Which cells are computed, and how, with values of a precision on a device."""
        all_valid = any(norm.training or norm.running_mean is None for norm in self.bn)
        kernel_size = self.convs[0].kernel_size[0]
        side = self.strip_rows if mode == 'strips' else self.tile(dtype, device.type)
        key = mode, kernel_size, all_valid, side, device
        if key not in self._plans:
            if mode == 'strips':
                make = partial(StripPlan, kernel_size=kernel_size, rows=side, device=device)
            else:
                transform = TileTransform(side, kernel_size)
                make = partial(ConvPlan, transform=transform, device=device)
            layers = self.paddings, kernel_size, all_valid
            self._plans[key] = EncoderPlan(*self._layout, *layers, device, make)
        return self._plans[key]

    def tile(self, dtype: torch.dtype, device: str) -> int:
        """Side of the tiles: 1 in 16 bits, which have no digits to spare for interpolation."""
        full = torch.float32, torch.float64
        weight = self.convs[0].weight.dtype  # tiles are computed in it
        return 3 if weight in full and (dtype in full or not fast_products(dtype, device)) else 1

    def __getstate__(self) -> dict:
        """Without what is made again where it is needed."""
        made = dict(_plans={}, _kept=[], _compiled=None, _rehearsed=set())
        return super().__getstate__() | made

    def mode_for(self, moments: Tensor) -> str:
        """How moments like these are encoded; ``'auto'`` says why."""
        if self.conv_mode != 'auto':
            return self.conv_mode
        mode, reason = self._choose(moments)
        choice = f'Moment encoder: {mode}, {reason}'
        if choice not in self._said:
            self._said.add(choice)
            print_log(choice, 'current')
        return mode

    def _choose(self, moments: Tensor) -> tuple[str, str]:
        """A mode, and the reason for it."""
        batch, channels, _ = moments.shape
        device = moments.device.type
        if _is_traced():
            return 'dense', 'since it is being compiled or exported'
        if self.compile_settings is not None:
            return 'dense', 'which is what model.neck.compile compiles'
        if device == 'cpu':
            if channels < SPARSE_CHANNELS:
                return 'dense', f'which is faster with fewer than {SPARSE_CHANNELS} channels'
            return 'sparse', 'which is the fastest on a CPU'
        plan = self.plan(moments.dtype, moments.device, 'strips')
        left = sum(layer.num_cells for layer in plan.forward)
        whole = sum(cells.size**2 for cells in plan.cells[1:])
        saving = (whole - left) * batch * channels**2 * self.convs[0].kernel_size[0] ** 2
        by_count = f"which was counted, not timed on '{device}'; model.neck.conv_mode decides"
        if saving < STRIP_SAVING * len(self.convs):
            return 'dense', f'as there is too little for strips to save, {by_count}'
        return 'strips', f'{left / whole:.0%} of the multiply-adds of the whole map, {by_count}'


def _require_one_of(setting: str, value: str | None, choices: tuple) -> None:
    if value not in choices:
        raise InputError(f'{setting}={value!r} is none of {", ".join(map(str, choices))}')


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _autocasts(device: str) -> bool:
    """Whether autocast is on, on a device that need not have one."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _freed_casts(device: str):
    """Context in which autocast frees a weight's copy after its use, where no gradient needs it.

    It would keep the copies of all layers to its end, which is half as much memory as the weights,
    though none is used twice.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _autocasts(device):
        return nullcontext()
    return torch.autocast(device, cache_enabled=False)


def _passes_of_checkpoint(norm: nn.Module) -> tuple:
    """Contexts of a checkpoint's first pass, and of the second, which must update nothing."""
    return nullcontext(), with_attributes(copied_statistics([norm]))
