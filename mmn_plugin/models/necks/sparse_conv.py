"""Convolution and normalization on the cells that exist."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmn_plugin.models.pieces import tell_statistics

from .sparse_plan import ConvChunk, ConvPlan, NormInputs

_UNITS = {torch.bfloat16: 'amx_bf16', torch.float16: 'amx_fp16'}  # the matrix units of x86


@cache
def fast_products(dtype: torch.dtype, device: str) -> bool:
    """Whether products in a 16-bit precision are faster than in float32.

    Args:
        dtype (torch.dtype): ``torch.bfloat16`` or ``torch.float16``.
        device (str): Type of the device.

    Returns:
        bool: True except for x86 CPUs without a matrix unit (AMX) for the precision: with AVX-512
        alone convolutions and matrix products ran at 0.5 to 0.8 of their speed in float32.
    """
    if device != 'cpu':
        return True
    capabilities = torch.cpu.get_capabilities()
    return capabilities.get('architecture') != 'x86_64' or capabilities.get(_UNITS[dtype], False)


class Workspaces:
    """Lends buffers to one convolution at a time; there are as many sets as ran at the same time.

    Fresh memory of this size costs a page fault every 4 kB, which on the CPU takes as long as
    what is computed in it.
    """

    def __init__(self):
        self._free: list[dict[tuple, Tensor]] = []

    @contextmanager
    def borrow(self) -> Iterator[Callable[..., Tensor]]:
        """`take` of buffers that nobody else has; they are given up where an error interrupts."""
        try:
            buffers = self._free.pop()  # a list's pop and append are atomic
        except IndexError:
            buffers = {}
        yield partial(self.take, buffers)
        self._free.append(buffers)

    @staticmethod
    def take(
        buffers: dict[tuple, Tensor], name: str, shape: tuple[int, ...], like: Tensor
    ) -> Tensor:
        """A contiguous tensor with the dtype and device of another.

        Its contents are undefined, and valid until the name is taken again; a buffer is as large
        as was ever asked for.
        """
        key = name, like.dtype, like.device
        size = torch.Size(shape).numel()
        if key not in buffers or buffers[key].numel() < size:
            buffers.pop(key, None)
            with torch.inference_mode(False):  # or a training could not write to it
                buffers[key] = like.new_empty(size)
        return buffers[key][:size].view(shape)

    def clear(self) -> None:
        """Give the memory of all that are not lent back."""
        self._free.clear()


# Elements of transformed weights, or of their gradients, that are held at a time.
WEIGHT_ELEMENTS = 2**24
# Elements of windows that are gathered at a time.
WINDOW_ELEMENTS = 2**20

workspaces = Workspaces()


def sparse_conv(
    values: Tensor,
    weight: Tensor,
    forward: ConvPlan,
    backward: ConvPlan,
    source: NormInputs | None = None,
    products: type | None = None,
) -> Tensor:
    """``conv2d`` without bias on active cells alone.

    Computed in the dtype of the values, or in that of the weight where the plan asks for
    ``full_precision``.

    Args:
        values (Tensor): (A + 1, B, H) of the active input cells; the last row is zero.
        weight (Tensor): (H', H, K, K).
        forward (ConvPlan): Where outputs find their inputs.
        backward (ConvPlan): Where inputs find the gradients of their outputs.
        source (NormInputs, optional): What ``values`` were computed from. Backward then computes
            them again and they need not be kept. Defaults to None.
        products (type, optional): What computes by such plans. Defaults to None: tiles, by
            :class:`ConvPlan`.

    Returns:
        Tensor: (A' + 1, B, H') of the output cells; the last row is zero.
    """
    plans = forward, backward, products or TileProducts
    return _SparseConv.apply(values, weight, plans, *(source or ()))


class _SparseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weight, plans, *source):
        ctx.save_for_backward(weight, *(source or (values,)))
        ctx.plans = plan, _, products = plans
        dtype = weight.dtype if plan.full_precision else values.dtype
        with workspaces.borrow() as take:
            result = products(plan, weight.transpose(0, 1), take).convolve(values.to(dtype))
        return result.to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        weight, *source = ctx.saved_tensors
        forward, backward, products = ctx.plans
        of_values = of_weight = None
        dtype = weight.dtype if forward.full_precision else source[0].dtype
        gradient = gradient.to(dtype).contiguous()
        with workspaces.borrow() as take:
            if ctx.needs_input_grad[0]:
                of_values = products(backward, weight, take).convolve(gradient)
                of_values = of_values.to(source[0].dtype)
            if ctx.needs_input_grad[1]:
                values = NormInputs(*source).output() if len(source) > 1 else source[0]
                layer = products(forward, weight, take)
                of_weight = layer.weight_gradient(values.to(dtype), gradient)
        if len(source) == 1:  # the first layer's, which comes last
            workspaces.clear()
        return of_values, of_weight, *[None] * (len(ctx.needs_input_grad) - 2)


class KeptKernels:
    """Transformed kernels of one weight, kept for inference until the weight changes.

    They are kept from the second time on that they are asked for: what is computed once needs no
    memory. A change is noticed by the weight's version, place and precision and, as writing to
    ``weight.data`` changes none of them, by sums over its kernels.
    """

    def __init__(self):
        self._kept: tuple[tuple, Tensor | None, dict] = (), None, {}  # replaced as one, for threads

    def kernels(self, weight: Tensor, name: tuple, make: Callable, take: Callable) -> Tensor:
        """What ``make`` gives for this weight, with memory of its own or, the first time, lent."""
        of = weight._version, weight.data_ptr(), weight.dtype
        sums = weight.detach().sum((-2, -1))  # (H, H')
        before, values, found = self._kept
        if of != before or not torch.equal(sums, values):
            self._kept = of, sums, {name: None}
            return make(take)
        if name not in found:
            found[name] = None
            return make(take)
        if found[name] is None:
            found[name] = make(lambda _, shape, like: like.new_empty(shape))
        return found[name]


class TileProducts:
    """A convolution as products of windows with kernels, both transformed (`TileTransform`).

    Args:
        plan (ConvPlan): Where outputs find their inputs.
        weight (Tensor): (H, H', K, K), or a transpose of such.
        take (Callable): Gives memory for what is computed on the way, see `Workspaces`.
        kept (KeptKernels, optional): What is transformed once for all. Defaults to None.
    """

    def __init__(
        self,
        plan: ConvPlan,
        weight: Tensor,
        take: Callable[..., Tensor],
        kept: 'KeptKernels | None' = None,
    ):
        self.plan, self.transform, self.weight, self.take = plan, plan.transform, weight, take
        self.kept = kept

    def convolve(self, values: Tensor) -> Tensor:
        """(A + 1, B, H) to (A' + 1, B, H')."""
        batch, channels = values.shape[1], self.weight.shape[1]
        result = values.new_zeros(len(self.plan.outputs) + 1, batch, channels)
        for group in self.groups():
            kernels = self.kernels(group, values.dtype)  # (c, S * S, H, H')
            for chunk in self.plan.chunks(values.shape[1]):
                shape = len(kernels), chunk.num_tiles * batch, channels
                products = self.take('products', shape, values)
                columns = self.columns(values, chunk, group)
                for kernel, product, column in zip(kernels, products, columns, strict=True):
                    _multiply(column, kernel, product)
                self.add_tiles(result[chunk.first : chunk.last], products, group, chunk)
        return result

    def weight_gradient(self, values: Tensor, gradient: Tensor) -> Tensor:
        """(H', H, K, K) from values (A + 1, B, H) and the result's gradient (A' + 1, B, H')."""
        result = self.weight.new_zeros(
            self.weight[..., 0, 0].numel(), self.transform.kernel_size**2
        )
        for group in self.groups():
            of_kernels = _constant(
                self.transform.of_kernels[group], self.weight
            )  # (c, S * S, K * K)
            shape = *of_kernels.shape[:2], *self.weight.shape[:2]
            kernels = self.take('kernels', shape, self.weight).zero_()
            for chunk in self.plan.chunks(values.shape[1]):
                products = self.products_of_tiles(gradient, group, chunk)
                columns = self.columns(values, chunk, group)
                for kernel, product, column in zip(kernels, products, columns, strict=True):
                    for block in range(len(kernel)):
                        _add_product(kernel[block], product.T, column[:, block])
            result.addmm_(kernels.view(-1, len(result)).T, of_kernels.flatten(0, 1))
        return result.view_as(self.weight)

    def groups(self) -> list[slice]:
        """Components whose transformed weights are held together."""
        count = self.transform.components
        elements = count * self.transform.blocks**2 * self.weight[..., 0, 0].numel()
        groups = min(count, -(-elements // WEIGHT_ELEMENTS))
        bounds = np.linspace(0, count, groups + 1).round().astype(int).tolist()
        return [slice(first, last) for first, last in pairwise(bounds)]

    def kernels(self, group: slice, dtype: torch.dtype) -> Tensor:
        """(c, S * S, H, H') components of the weight, transposed as it is."""
        transposed = not self.weight.is_contiguous()
        rows = self.weight.transpose(0, 1) if transposed else self.weight
        if self.kept is None:
            kernels = self.transformed(rows, group, dtype, self.take)
        else:
            name = self.transform.tile, group.start, group.stop, dtype
            make = partial(self.transformed, rows, group, dtype)
            kernels = self.kept.kernels(rows, name, make, self.take)
        kernels = kernels.transpose(2, 3) if transposed else kernels
        # Contiguous where the precision asks for one sum that is rounded once.
        return kernels if dtype == self.weight.dtype else kernels.contiguous()

    def transformed(self, rows: Tensor, group: slice, dtype: torch.dtype, take) -> Tensor:
        """(c, S * S, H', H) components of a contiguous weight."""
        of_kernels = _constant(self.plan.kernel_matrix[group], rows)  # (c, S * S, K * K)
        kernels = take('kernels', (*of_kernels.shape[:2], *rows.shape[:2]), rows)
        torch.mm(
            of_kernels.flatten(0, 1),
            rows.flatten(2).flatten(0, 1).T,
            out=kernels.view(-1, rows.shape[0] * rows.shape[1]),
        )
        return kernels.to(dtype)

    def columns(self, values: Tensor, chunk: ConvChunk, group: slice) -> Iterator[Tensor]:
        """(T * B, S * S, H) for each component: what a tile is multiplied with.

        The same memory serves all components.
        """
        batch, channels = values.shape[1:]
        rows = chunk.neighbor_rows(batch)
        columns = self.take('columns', (len(rows), channels), values)
        for component in self.windows(values, chunk, group):
            torch.index_select(component.view(-1, channels), 0, rows, out=columns)
            yield columns.view(chunk.num_tiles * batch, -1, channels)

    def windows(self, values: Tensor, chunk: ConvChunk, group: slice) -> Tensor:
        """(c, Q, B * H) components of the windows; the cells themselves where a tile is a cell."""
        if self.transform.tile == 1:
            return values[None]
        rows = values.flatten(1)
        of_windows = _constant(self.transform.of_windows[group], values)
        places, count = chunk.windows.shape
        result = self.take('components', (len(of_windows), count, rows.shape[1]), values)
        step = max(1, WINDOW_ELEMENTS // (places * rows.shape[1]))
        for first in range(0, count, step):
            index = chunk.windows[:, first : first + step]
            windows = self.take('windows', (index.numel(), rows.shape[1]), values)
            torch.index_select(rows, 0, index.flatten(), out=windows)
            part = result[:, first : first + step].flatten(1)
            torch.mm(of_windows, windows.view(places, -1), out=part)
        return result

    def add_tiles(self, result: Tensor, products: Tensor, group: slice, chunk: ConvChunk) -> None:
        """Add what products (c, T * B, H') give to the output cells of their tiles, (n, B, H')."""
        tiles = products
        if self.transform.tile > 1:
            to_tiles = _constant(self.transform.to_tiles[:, group], products)
            tiles = self.take('tiles', (len(to_tiles), products[0].numel()), products)
            torch.mm(to_tiles, products.flatten(1), out=tiles)  # (m * m, T * B * H')
        rows = tiles.view(-1, result[0].numel())
        result.flatten(1).add_(rows.index_select(0, chunk.cell_places))

    def products_of_tiles(self, gradient: Tensor, group: slice, chunk: ConvChunk) -> Tensor:
        """(c, T * B, H') gradient of each component's product."""
        rows = gradient.flatten(1)
        tiles = self.take('tiles', (len(chunk.tile_cells), rows.shape[1]), gradient)
        torch.index_select(rows, 0, chunk.tile_cells, out=tiles)  # (m * m * T, B * H')
        if self.transform.tile > 1:
            to_tiles = _constant(self.transform.to_tiles[:, group], gradient)
            tiles = tiles.view(len(to_tiles), -1)
            products = self.take('products', (to_tiles.shape[1], tiles.shape[1]), gradient)
            tiles = torch.mm(to_tiles.T, tiles, out=products)
        return tiles.view(-1, chunk.num_tiles * gradient.shape[1], gradient.shape[2])


def _multiply(columns: Tensor, kernel: Tensor, product: Tensor) -> None:
    """Sum over small kernels and channels, (T * B, S * S, H) and (S * S, H, H') to (T * B, H')."""
    if kernel.is_contiguous():
        torch.mm(columns.flatten(1), kernel.flatten(0, 1), out=product)
        return
    torch.mm(columns[:, 0], kernel[0], out=product)
    for block in range(1, len(kernel)):
        product.addmm_(columns[:, block], kernel[block])


def _add_product(result: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right``; a sum over chunks keeps the result's precision."""
    if result.dtype == left.dtype:
        result.addmm_(left, right)
    else:
        result.add_(left @ right)


def _constant(matrix: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(matrix).to(like)


def sparse_norm(
    values: Tensor,
    bias: Tensor,
    norm: nn.modules.batchnorm._BatchNorm,
    divisor: Tensor,
    map_cells: int,
) -> tuple[Tensor, NormInputs]:
    """``relu(norm(values + bias)) / divisor``, as if the whole map were there.

    Cells that are not active hold the bare bias. Shifting all cells changes no statistics but the
    mean, so in training the bias drops out of the result: with values z of the A active cells of
    M, the mean is sum(z) / M + bias and the variance
    (sum((z - mean(z))**2) + (M - A) * mean(z)**2) / M.

    Args:
        values (Tensor): (A + 1, B, H), the last row zero: a convolution's result without bias.
        bias (Tensor): (H,) bias of the convolution.
        norm (nn.BatchNorm2d | nn.SyncBatchNorm): Its statistics are updated in training.
        divisor (Tensor): (A + 1,), infinite in the last row.
        map_cells (int): Cells of the whole map (M).

    Returns:
        tuple[Tensor, NormInputs]: (A + 1, B, H) in the dtype of ``values``, the last row zero, and
        what it can be computed from again.
    """
    if norm.training or norm.running_mean is None:
        mean, variance = _batch_statistics(values.detach(), bias.detach(), norm, map_cells)
        fixed, cells = False, map_cells * values.shape[1]
    else:
        mean, variance = norm.running_mean - bias.detach(), norm.running_var
        fixed, cells = True, 0
    scale = (variance + norm.eps).rsqrt()
    inputs = NormInputs(values, norm.weight, norm.bias, mean, scale, divisor)
    return _SparseNorm.apply(bias, fixed, cells, _group(norm), *inputs), inputs


def _group(norm: nn.Module):
    """Process group over which statistics are taken, None for this process alone."""
    alone = not isinstance(norm, nn.SyncBatchNorm) or not dist.is_initialized()
    if alone or not norm.training:
        return None
    return norm.process_group or dist.group.WORLD


def _batch_statistics(
    values: Tensor, bias: Tensor, norm: nn.Module, map_cells: int
) -> tuple[Tensor, Tensor]:
    """Mean without bias, and biased variance, over all cells; updates the running statistics."""
    group, count = _group(norm), map_cells * values.shape[1]
    sums = values.sum((0, 1), dtype=bias.dtype)
    if group is not None:
        sums = torch.cat([sums, sums.new_full((1,), count)])
        dist.all_reduce(sums, group=group)
        sums, count = sums[:-1], sums[-1]
    mean = sums / count
    squares = (values - mean).square_().sum((0, 1))
    # the zero row among the values is one of the cells that are not active
    squares += (map_cells - len(values)) * values.shape[1] * mean.square()
    if group is not None:
        dist.all_reduce(squares, group=group)
    if norm.running_mean is not None:
        norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        if momentum is None:  # a plain average over all batches
            momentum = 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean + bias, momentum)
        norm.running_var.lerp_(squares / (count - 1), momentum)
    tell_statistics(norm, mean + bias, squares / count)
    return mean, squares / count


class _SparseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, bias, fixed, cells, group, *inputs):
        ctx.save_for_backward(*inputs)
        ctx.settings = fixed, cells, group
        return NormInputs(*inputs).output()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        inputs, (fixed, cells, group) = NormInputs(*ctx.saved_tensors), ctx.settings
        values, weight, _, mean, scale, divisor = inputs
        active = inputs.normalized() > 0
        gradient = (gradient / divisor[:, None, None]).mul_(active)
        del active
        standard = (values.to(gradient.dtype) - mean).mul_(scale)
        of_shift = gradient.sum((0, 1))
        of_weight = torch.linalg.vecdot(gradient, standard, dim=0).sum(0)
        of_bias = torch.zeros_like(of_shift)
        gradient.mul_(weight * scale)
        if fixed:
            of_bias = gradient.sum((0, 1))
        else:
            sums = torch.stack([of_shift, of_weight])
            if group is not None:
                cells = sums.new_full((), cells)
                dist.all_reduce(sums, group=group)
                dist.all_reduce(cells, group=group)
            sums *= weight * scale / cells
            gradient.sub_(standard.mul_(sums[1])).sub_(sums[0])
            gradient[-1] = 0  # the row of the inactive cells, whose values are constants
        of_values = gradient.to(values.dtype)
        return of_bias, None, None, None, of_values, of_weight, of_shift, None, None, None
