"""Chunked and recomputed equals all at once."""

import math

import numpy as np
import pytest
import torch

from mmn_plugin.models.losses.mutual_matching_loss import PairMask, streaming_logsumexp

N, M, L, J, T = 4, 9, 3, 5, 0.1


def arguments(fill):
    rows = torch.randn(N, J, dtype=torch.float64, requires_grad=True)
    blocks = torch.randn(M, L, J, dtype=torch.float64, requires_grad=True)
    pairs = [(0, 8), (2, 3), (1, 0), (0, 1), (2, 3), (3, 3)]  # one of them twice
    masked = torch.rand(len(pairs), L) > 0.4
    log_weight = torch.randn(M, dtype=torch.float64)
    mask = PairMask.of(*np.array(pairs).T, masked, fill)
    dense = torch.zeros(N, M, L, dtype=torch.bool)
    for (n, m), entries in zip(pairs, masked, strict=True):
        dense[n, m] |= entries
    logits = torch.einsum('nj,mlj->nml', rows, blocks) / T
    expected = (logits.masked_fill(dense, fill) + log_weight[:, None]).flatten(1).logsumexp(1)
    return rows, blocks, mask, log_weight, expected


@pytest.mark.parametrize('fill', [0.0, -math.inf])
@pytest.mark.parametrize('chunk_elements', [1, N * L * 2, N * L * 4 + 1, 10**6])
def test_values_and_gradients_do_not_depend_on_the_chunks(fill, chunk_elements):
    rows, blocks, mask, log_weight, expected = arguments(fill)
    ours = streaming_logsumexp(rows, blocks, T, mask, log_weight, chunk_elements)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(N, dtype=torch.float64)
    wanted = torch.autograd.grad((expected * weights).sum(), (rows, blocks))
    for gradient, reference in zip(
        torch.autograd.grad((ours * weights).sum(), (rows, blocks)), wanted, strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)


def test_a_row_with_nothing_to_sum_is_minus_infinity_and_has_no_gradient():
    rows = torch.randn(2, J, requires_grad=True)
    blocks = torch.randn(1, 1, J, requires_grad=True)
    mask = PairMask.of(np.array([0]), np.array([0]), torch.ones(1, 1, dtype=torch.bool), -math.inf)
    result = streaming_logsumexp(rows, blocks, T, mask)
    assert result[0] == -math.inf
    (result.exp() * torch.tensor([1.0, 0.0])).sum().backward()
    assert rows.grad.eq(0).all()
    assert blocks.grad.eq(0).all()


def test_only_what_needs_a_gradient_gets_one():
    rows, blocks = torch.randn(N, J, requires_grad=True), torch.randn(M, L, J)
    streaming_logsumexp(rows, blocks, T).sum().backward()
    assert rows.grad.norm() > 0
    assert blocks.grad is None


def test_saved_memory_does_not_grow_with_the_number_of_similarities():
    rows, blocks = torch.randn(N, J, requires_grad=True), torch.randn(M, L, J)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        streaming_logsumexp(rows, blocks, T)
    assert sum(saved) == rows.numel() + blocks.numel() + N
