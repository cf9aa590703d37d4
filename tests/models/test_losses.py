"""The losses of MMN against the reference page's formulas, their chunks, and their memory."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.matching_by_definition import losses_by_definition
from helpers.random_candidates import joined_candidates, random_candidates
from torch.profiler import ProfilerActivity, profile

from mmn_plugin.models import Candidates, Negatives
from mmn_plugin.models.losses import IoURegressionLoss, MutualMatchingLoss
from mmn_plugin.models.losses.mutual_matching_loss import PairMask, streaming_logsumexp
from mmn_plugin.structures import MomentGrid

SETTINGS = dict(
    num_positive=2,
    negative_iou=0.5,
    sentence_removal_iou=0.5,
    margin=0.3,
    temperature_video=0.1,
    temperature_sentence=0.2,
)
P = 7


def losses(own, negatives=None, **settings):
    loss = MutualMatchingLoss(**(SETTINGS | settings))
    positives = own.iou.topk(loss.num_positive, dim=1).indices
    return loss(own, positives, negatives or Negatives.of(own, own, (0, 0)))


def assert_same_values_and_gradients(ours, expected, inputs):
    for value, reference in zip(ours, expected, strict=True):
        assert value.item() == pytest.approx(reference.item(), rel=1e-9)
        gradients, references = (
            torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True)
            for loss in (value, reference)
        )
        for gradient, wanted in zip(gradients, references, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('chunk_elements', [1, 2**22])
@pytest.mark.parametrize('counts', [[1], [3], [1, 1], [4, 1, 2]])
def test_matching_losses_and_gradients_equal_the_formulas(counts, chunk_elements):
    own = random_candidates(counts, range(len(counts)))
    inputs = [own.moments.requires_grad_(), own.sentences.requires_grad_()]
    assert_same_values_and_gradients(
        losses(own, chunk_elements=chunk_elements), losses_by_definition(SETTINGS, own), inputs
    )


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(weight=0.3),
        dict(weight=2.0, exclude_same_text=True),
        dict(exclude_similar=0.5),
        dict(weight=2.0, exclude_same_text=True, exclude_similar=0.9),
    ],
)
@pytest.mark.parametrize('num_positive', [1, 3])
def test_negatives_from_elsewhere_enter_by_the_same_formulas(settings, num_positive):
    # Another rank has video b twice, video c occurs twice in the batch; texts repeat everywhere.
    own = random_candidates([3, 1, 2, 1], 'abcc', list('xyxzxyz'))
    before, after = random_candidates([2], 'b'), random_candidates([3, 2], 'db', list('yzyxx'))
    inputs = [x.requires_grad_() for c in (before, own, after) for x in (c.moments, c.sentences)]
    expected = losses_by_definition(
        SETTINGS | dict(num_positive=num_positive), own, [before, after], **settings
    )
    everyone = joined_candidates(before, own, after)
    negatives = Negatives.of(everyone, own, (1, 2), **settings)
    assert_same_values_and_gradients(
        losses(own, negatives, num_positive=num_positive, chunk_elements=50), expected, inputs
    )


def test_a_sentence_is_no_negative_of_itself_whatever_overlap_removes_one():
    loss_vid, _ = losses(random_candidates([1], 'a'), sentence_removal_iou=1.1)
    assert loss_vid == 0


def test_iou_loss_is_cross_entropy_with_the_scaled_iou():
    logits = torch.randn(3, P, dtype=torch.float64)
    iou = torch.rand(3, P, dtype=torch.float64)
    loss = IoURegressionLoss(min_iou=0.3, max_iou=0.7)(logits, iou).item()
    expected = 0
    for x, y in zip(logits.flatten().tolist(), iou.flatten().tolist(), strict=True):
        score, target = 1 / (1 + math.exp(-x)), min(max((y - 0.3) / 0.4, 0), 1)
        expected -= target * math.log(score) + (1 - target) * math.log(1 - score)
    assert loss == pytest.approx(expected / logits.numel(), rel=1e-9)


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


GRID = MomentGrid(16, [15])
SENTENCES = 4  # of a video


def peak_of_allocations(run):
    """Most MB of tensors at once during a run: what torch asks for, whatever malloc keeps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return np.cumsum([e.nbytes() for e in events if e.name() == '[memory]']).max() / 2**20


def candidates(videos, gradient):
    count = videos * SENTENCES
    moments = F.normalize(torch.randn(videos, GRID.num_moments, 32), dim=-1)
    sentences = F.normalize(torch.randn(count, 32), dim=-1)
    truth = torch.rand(count, 2).cumsum(1) * 10
    return Candidates(
        moments.requires_grad_(gradient),
        sentences.requires_grad_(gradient),
        truth,
        np.repeat(np.arange(videos), SENTENCES),
        [str(v) for v in range(videos)],
        [''] * count,
        iou=GRID.best_iou(truth[:, None], 30.0),
    )


def memory(videos, gathered, chunk_elements):
    """MB beyond embeddings and their gradients, and MB of all similarities at once."""
    own, everyone = candidates(8, True), candidates(videos, gathered)
    loss = MutualMatchingLoss(**SETTINGS, chunk_elements=chunk_elements)
    inputs = [t for c in (own, everyone) for t in (c.moments, c.sentences) if t.requires_grad]
    negatives = Negatives.of(everyone, own, (0, 0))
    positives = own.iou.topk(loss.num_positive, dim=1).indices

    def step():
        losses = loss(own, positives, negatives)
        torch.autograd.grad(sum(losses), inputs)

    gradients = sum(tensor.numel() for tensor in inputs) / 2**18
    similarities = len(own.sentences) * everyone.moments[..., 0].numel() / 2**18
    return peak_of_allocations(step) - gradients, similarities


@pytest.mark.parametrize('gathered', [False, True])
def test_memory_stays_flat_while_negatives_grow(gathered):
    (few, few_at_once), (many, at_once) = (memory(n, gathered, 2**17) for n in (100, 1600))
    assert many - few < (at_once - few_at_once) / 4


def test_all_similarities_in_one_chunk_are_seen_to_take_memory():
    (few, few_at_once), (many, at_once) = (memory(n, False, 2**30) for n in (100, 1600))
    assert many - few > at_once - few_at_once
