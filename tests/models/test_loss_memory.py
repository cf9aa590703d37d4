"""Memory that the losses take beyond the embeddings: that of one chunk, however many negatives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from mmn_plugin.models import Candidates, NegativePool, Negatives
from mmn_plugin.models.losses import MutualMatchingLoss
from mmn_plugin.structures import MomentGrid

GRID = MomentGrid(16, [15])
SENTENCES = 4  # of a video
SETTINGS = dict(
    num_positive=1,
    negative_iou=0.5,
    sentence_removal_iou=0.5,
    margin=0.3,
    temperature_video=0.1,
    temperature_sentence=0.1,
)


def peak_of_allocations(run):
    """Most MB of tensors at once during a run: what torch asks for, whatever malloc keeps."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return np.cumsum([e.nbytes() for e in events if e.name() == '[memory]']).max() / 2**20


def candidates(videos, first, gradient):
    """So many videos, named from ``first`` on."""
    count = videos * SENTENCES
    moments = F.normalize(torch.randn(videos, GRID.num_moments, 32), dim=-1)
    sentences = F.normalize(torch.randn(count, 32), dim=-1)
    truth = torch.rand(count, 2).cumsum(1) * 10
    return Candidates(
        moments.requires_grad_(gradient),
        sentences.requires_grad_(gradient),
        truth,
        np.repeat(np.arange(videos), SENTENCES),
        [str(first + v) for v in range(videos)],
        [''] * count,
        iou=GRID.iou(truth, 30.0),
    )


def memory(videos, gathered, chunk_elements):
    """MB beyond embeddings and their gradients, and MB of all similarities at once."""
    own, rest = candidates(8, 0, True), candidates(videos, 8, gathered)
    loss = MutualMatchingLoss(**SETTINGS, chunk_elements=chunk_elements)
    inputs = [t for c in (own, rest) for t in (c.moments, c.sentences) if t.requires_grad]
    negatives = Negatives([NegativePool.of(own, own, (0, 0)), NegativePool.of(rest, own)])
    positives = own.iou.topk(1, dim=1).indices

    def step():
        losses = loss(own, positives, negatives)
        torch.autograd.grad(sum(losses), inputs, allow_unused=True)

    gradients = sum(tensor.numel() for tensor in inputs) / 2**18
    similarities = len(own.sentences) * rest.moments[..., 0].numel() / 2**18
    return peak_of_allocations(step) - gradients, similarities


@pytest.mark.parametrize('gathered', [False, True])
def test_memory_stays_flat_while_negatives_grow(gathered):
    (few, few_at_once), (many, at_once) = (memory(n, gathered, 2**17) for n in (100, 1600))
    assert many - few < (at_once - few_at_once) / 4


def test_all_similarities_in_one_chunk_are_seen_to_take_memory():
    (few, few_at_once), (many, at_once) = (memory(n, False, 2**30) for n in (100, 1600))
    assert many - few > at_once - few_at_once
