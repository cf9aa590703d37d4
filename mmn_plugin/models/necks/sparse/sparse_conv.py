"""Convolution on the active cells of a map."""
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .conv_chunk import ConvChunk
from .conv_plan import ConvPlan

# Elements of transformed weights, or of their gradients, that are held at a time.
WEIGHT_ELEMENTS = 2**25


def sparse_conv(values: Tensor, weight: Tensor, forward: ConvPlan, backward: ConvPlan) -> Tensor:
    """``conv2d`` without bias on active cells alone, computed in the dtype of the values.

    Args:
        values (Tensor): (A + 1, B, H) of the active input cells; the last row is zero.
        weight (Tensor): (H', H, K, K).
        forward (ConvPlan): Where outputs find their inputs.
        backward (ConvPlan): Where inputs find the gradients of their outputs.

    Returns:
        Tensor: (A' + 1, B, H') of the output cells; the last row is zero.
    """
    return _SparseConv.apply(values, weight, forward, backward)


class _SparseConv(torch.autograd.Function):

    @staticmethod
    def forward(ctx, values, weight, forward, backward):
        ctx.save_for_backward(values, weight)
        ctx.plans = forward, backward
        return _convolve(values, weight.transpose(0, 1), forward)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        values, weight = ctx.saved_tensors
        forward, backward = ctx.plans
        gradient = gradient.to(values.dtype).contiguous()
        of_values = of_weight = None
        if ctx.needs_input_grad[0]:
            of_values = _convolve(gradient, weight.flip(2, 3), backward)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(values, gradient, weight, forward)
        return of_values, of_weight, None, None


def _convolve(values: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(A + 1, B, H) and (H, H', K, K) to (A' + 1, B, H')."""
    batch, channels = values.shape[1], weight.shape[1]
    weight = weight.to(values.dtype).reshape(-1, plan.transform.kernel_size**2)
    result = values.new_zeros(len(plan.outputs) + 1, batch, channels)
    for components in _groups(plan, len(weight)):
        kernels = _constant(plan.transform.of_kernels[components], weight).flatten(0, 1) @ weight.T
        kernels = kernels.view(len(kernels) // plan.transform.blocks**2, -1, channels)
        for chunk in plan.chunks(values.device):
            products = values.new_empty(len(kernels), chunk.num_tiles * batch, channels)
            for kernel, product, columns in zip(
                    kernels, products, _columns(values, chunk, components, plan), strict=True):
                torch.mm(columns, kernel, out=product)
            _add_tiles(result[chunk.first:chunk.last], products, components, chunk, plan)
    return result


def _weight_gradient(values: Tensor, gradient: Tensor, weight: Tensor, plan: ConvPlan) -> Tensor:
    """(H', H, K, K), gradient with respect to the weight."""
    outputs, inputs = weight.shape[:2]
    transform = plan.transform
    result = weight.new_zeros(inputs * outputs, transform.kernel_size**2)
    for components in _groups(plan, len(result)):
        of_kernels = _constant(transform.of_kernels[components], result)
        kernels = weight.new_zeros(len(of_kernels), transform.blocks**2 * inputs, outputs)
        for chunk in plan.chunks(values.device):
            products = _products_of_tiles(gradient, components, chunk, plan)
            for kernel, product, columns in zip(
                    kernels, products, _columns(values, chunk, components, plan), strict=True):
                _add_product(kernel, columns.T, product)
        result.addmm_(kernels.view(-1, len(result)).T, of_kernels.flatten(0, 1))
    return result.view(inputs, outputs, *weight.shape[2:]).transpose(0, 1)


def _groups(plan: ConvPlan, pairs: int) -> list[slice]:
    """Components whose transformed weights are held together, for H * H' pairs of channels."""
    transform = plan.transform
    elements = transform.components * transform.blocks**2 * pairs
    bounds = np.linspace(0, transform.components, -(-elements // WEIGHT_ELEMENTS) + 1).round()
    bounds = np.unique(bounds.astype(int)).tolist()
    return [slice(first, last) for first, last in zip(bounds, bounds[1:], strict=False)]


def _columns(values: Tensor, chunk: ConvChunk, components: slice, plan: ConvPlan
             ) -> Iterator[Tensor]:
    """(T * B, S * S * H) for each component: what a tile is multiplied with.

    The same memory serves all components.
    """
    batch, channels = values.shape[1:]
    rows = chunk.neighbour_rows(batch)
    columns = values.new_empty(len(rows), channels)
    for component in _windows(values, chunk, components, plan):
        torch.index_select(component.view(-1, channels), 0, rows, out=columns)
        yield columns.view(chunk.num_tiles * batch, -1)


def _windows(values: Tensor, chunk: ConvChunk, components: slice, plan: ConvPlan) -> Tensor:
    """(c, Q, B * H) components of the windows; the cells themselves where a tile is a cell."""
    if plan.transform.tile == 1:
        return values[None]
    of_windows = _constant(plan.transform.of_windows[components], values)
    windows = values.flatten(1).index_select(0, chunk.windows)  # (C * Q, B * H)
    windows = windows.view(plan.transform.components, -1)
    return (of_windows @ windows).view(len(of_windows), -1, values[0].numel())


def _add_tiles(result: Tensor, products: Tensor, components: slice, chunk: ConvChunk,
               plan: ConvPlan) -> None:
    """Add the outputs' cells of (c, T * B, H') to (cells, B, H')."""
    tiles = products
    if plan.transform.tile > 1:
        to_tiles = _constant(plan.transform.to_tiles[:, components], products)
        tiles = to_tiles @ products.flatten(1)  # (m * m, T * B * H')
    rows = tiles.view(-1, result[0].numel())
    result.flatten(1).add_(rows.index_select(0, chunk.cell_places))


def _products_of_tiles(gradient: Tensor, components: slice, chunk: ConvChunk, plan: ConvPlan
                       ) -> Tensor:
    """(c, T * B, H') gradient of each component's product."""
    tiles = gradient.flatten(1).index_select(0, chunk.tile_cells)  # (m * m * T, B * H')
    if plan.transform.tile > 1:
        to_tiles = _constant(plan.transform.to_tiles[:, components], gradient)
        tiles = to_tiles.T @ tiles.view(len(to_tiles), -1)
    return tiles.view(-1, chunk.num_tiles * gradient.shape[1], gradient.shape[2])


def _add_product(result: Tensor, left: Tensor, right: Tensor) -> None:
    """result += left @ right; sums over chunks keep the result's precision."""
    if result.dtype == left.dtype:
        result.addmm_(left, right)
    else:
        result.add_(left @ right)


def _constant(matrix: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(matrix).to(like)
