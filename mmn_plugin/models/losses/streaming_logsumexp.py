"""The logarithm of a sum over very many similarities, in memory that does not grow with them."""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .pair_mask import PairMask


def streaming_logsumexp(
    rows: Tensor,
    blocks: Tensor,
    temperature: float,
    mask: PairMask | None = None,
    fill: float = -math.inf,
    log_weight: Tensor | None = None,
    chunk_elements: int = 2**22,
) -> Tensor:
    """``log sum over m, l of w[m] * exp(x[n, m, l])``, x = ``rows . blocks / temperature``.

    Blocks are visited a chunk at a time with a running logarithm, and visited again in backward,
    where a chunk's share of the gradient needs its similarities and the final sum alone. Beside
    inputs and their gradients, memory is one chunk, whatever the number of blocks; the work is
    one product forward and three backward (two where ``blocks`` needs no gradient).

    Args:
        rows (Tensor): (N, J).
        blocks (Tensor): (M, L, J).
        temperature (float): Divisor of the similarities.
        mask (PairMask, optional): Entries whose x is ``fill`` instead; no gradient passes there.
            Defaults to None.
        fill (float): x of masked entries; minus infinity leaves them out. Defaults to that.
        log_weight (Tensor, optional): (M,), log w; None means w = 1. Defaults to None.
        chunk_elements (int): Similarities held at a time; at least one block is. Defaults to
            2**22 (16 MB in float32).

    Returns:
        Tensor: (N,); minus infinity where nothing is left to sum.
    """
    return _StreamingLogSumExp.apply(
        rows, blocks, temperature, mask, fill, log_weight, chunk_elements
    )


class _StreamingLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, blocks, temperature, mask, fill, log_weight, chunk_elements):
        ctx.settings = (temperature, mask, fill, log_weight, chunk_elements)
        result = rows.new_full((len(rows),), -math.inf)
        for first, last in _chunks(rows, blocks, chunk_elements):
            logits = _logits(rows, blocks[first:last], first, *ctx.settings[:4])
            result = torch.logaddexp(result, logits.flatten(1).logsumexp(1))
        ctx.save_for_backward(rows, blocks, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, blocks, result = ctx.saved_tensors
        # Whoever calls backward under autocast would get products in another precision than the
        # sums they are added to.
        with torch.autocast(rows.device.type, enabled=False):
            gradients = _gradients(
                rows, blocks, result, gradient, ctx.settings, ctx.needs_input_grad[:2]
            )
        return *gradients, None, None, None, None, None


def _gradients(rows, blocks, result, gradient, settings, needed):
    """(N, J) and (M, L, J) of rows and blocks, None for what needs none."""
    temperature, mask, fill, log_weight, chunk_elements = settings
    need_rows, need_blocks = needed
    of_rows = torch.zeros_like(rows) if need_rows else None
    of_blocks = torch.empty_like(blocks) if need_blocks else None
    # A row without anything to sum has no gradient: exp(-inf - 0) = 0.
    result = result.masked_fill(result == -math.inf, 0.0)[:, None, None]
    scale = (gradient / temperature)[:, None, None]
    for first, last in _chunks(rows, blocks, chunk_elements):
        chunk = blocks[first:last]
        share = _logits(rows, chunk, first, temperature, mask, fill, log_weight)
        share.sub_(result).exp_().mul_(scale)  # (N, m, L)
        if mask is not None:
            mask.fill_(share, first, 0.0)
        share = share.flatten(1)  # (N, m * L)
        if need_rows:
            of_rows.addmm_(share, chunk.flatten(0, 1))
        if need_blocks:
            torch.mm(share.T, rows, out=of_blocks[first:last].view(-1, rows.shape[1]))
    return of_rows, of_blocks


def _chunks(rows: Tensor, blocks: Tensor, chunk_elements: int):
    """(first, last) of the blocks to visit together."""
    step = max(1, chunk_elements // max(1, len(rows) * blocks.shape[1]))
    for first in range(0, len(blocks), step):
        yield first, min(first + step, len(blocks))


def _logits(rows, chunk, first, temperature, mask, fill, log_weight) -> Tensor:
    """(N, m, L), x with its masked entries and weights."""
    logits = (rows @ chunk.flatten(0, 1).T).div_(temperature).unflatten(1, chunk.shape[:2])
    if mask is not None:
        mask.fill_(logits, first, fill)
    if log_weight is not None:
        logits.add_(log_weight[first : first + len(chunk), None])
    return logits
