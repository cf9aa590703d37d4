"""BatchNorm, ReLU and weighting of a map of which only active cells are held."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .norm_inputs import NormInputs


def sparse_norm(
    values: Tensor,
    bias: Tensor,
    norm: nn.modules.batchnorm._BatchNorm,
    cell_weight: Tensor,
    map_cells: int,
) -> tuple[Tensor, NormInputs]:
    """``relu(norm(values + bias)) * cell_weight``, as if the whole map were there.

    Cells that are not active hold the bare bias. Shifting all cells changes no statistics but the
    mean, so in training the bias drops out of the result: with values z of the A active cells of
    M, the mean is sum(z) / M + bias and the variance
    (sum((z - mean(z))**2) + (M - A) * mean(z)**2) / M.

    Args:
        values (Tensor): (A + 1, B, H), the last row zero: a convolution's result without bias.
        bias (Tensor): (H,) bias of the convolution.
        norm (nn.BatchNorm2d | nn.SyncBatchNorm): Its statistics are updated in training.
        cell_weight (Tensor): (A + 1,), 0 in the last row.
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
    inputs = NormInputs(
        values, norm.weight, norm.bias, mean, (variance + norm.eps).rsqrt(), cell_weight
    )
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
    group = _group(norm)
    cells = values.new_tensor([map_cells * values.shape[1]], dtype=bias.dtype)
    sums = torch.cat([values.sum((0, 1), dtype=bias.dtype), cells])
    if group is not None:
        dist.all_reduce(sums, group=group)
    count = sums[-1]
    mean = sums[:-1] / count
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
        with torch.autocast(gradient.device.type, enabled=False):
            of_values, of_bias, of_weight, of_shift = _gradients(
                gradient, NormInputs(*ctx.saved_tensors), *ctx.settings
            )
        return of_bias, None, None, None, of_values, of_weight, of_shift, None, None, None


def _gradients(gradient: Tensor, inputs: NormInputs, fixed: bool, cells: int, group):
    """Gradients with respect to values, the convolution's bias, and the norm's weight and bias."""
    values, weight, _, mean, scale, cell_weight = inputs
    active = inputs.normalised() > 0
    gradient = (gradient * cell_weight[:, None, None]).mul_(active)
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
        count = sums.new_tensor(cells)
        if group is not None:
            dist.all_reduce(sums, group=group)
            dist.all_reduce(count, group=group)
        sums *= weight * scale / count
        gradient.sub_(standard.mul_(sums[1])).sub_(sums[0])
        gradient[-1] = 0  # the row of the inactive cells, whose values are constants
    return gradient.to(values.dtype), of_bias, of_weight, of_shift
