"""The losses against the reference page's formulas, written as loops."""

import math

import pytest
import torch
from helpers.matching_by_definition import losses_by_definition
from helpers.random_candidates import random_candidates

from mmn_plugin.models import NegativePool, Negatives
from mmn_plugin.models.losses import IoURegressionLoss, MutualMatchingLoss

SETTINGS = dict(
    num_positive=2,
    negative_iou=0.5,
    sentence_removal_iou=0.5,
    margin=0.3,
    temperature_video=0.1,
    temperature_sentence=0.2,
)
P = 7


def losses(own, pools=None, **settings):
    loss = MutualMatchingLoss(**(SETTINGS | settings))
    positives = own.iou.topk(loss.num_positive, dim=1).indices
    return loss(own, positives, Negatives(pools or [NegativePool.of(own, own, (0, 0))]))


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
    [dict(), dict(weight=0.3), dict(weight=2.0, exclude_same_text=True)],
)
@pytest.mark.parametrize('num_positive', [1, 3])
def test_negatives_from_elsewhere_enter_by_the_same_formulas(settings, num_positive):
    # Video b is in the queue twice, video c occurs twice in the batch; texts repeat everywhere.
    own = random_candidates([3, 1, 2, 1], 'abcc', list('xyxzxyz'))
    queue = random_candidates([2, 3, 2], 'bdb', list('xxyzyxx'))
    inputs = [x.requires_grad_() for c in (own, queue) for x in (c.moments, c.sentences)]
    settings = dict(weight=1.0, exclude_same_text=False) | settings
    expected = losses_by_definition(
        SETTINGS | dict(num_positive=num_positive), own, [queue], **settings
    )
    pools = [NegativePool.of(own, own, (0, 0), **settings), NegativePool.of(queue, own, **settings)]
    assert_same_values_and_gradients(
        losses(own, pools, num_positive=num_positive, chunk_elements=50), expected, inputs
    )


def test_iou_loss_is_cross_entropy_with_the_scaled_iou():
    logits = torch.randn(3, P, dtype=torch.float64)
    iou = torch.rand(3, P, dtype=torch.float64)
    loss = IoURegressionLoss(min_iou=0.3, max_iou=0.7)(logits, iou).item()
    expected = 0
    for x, y in zip(logits.flatten().tolist(), iou.flatten().tolist(), strict=True):
        score, target = 1 / (1 + math.exp(-x)), min(max((y - 0.3) / 0.4, 0), 1)
        expected -= target * math.log(score) + (1 - target) * math.log(1 - score)
    assert loss == pytest.approx(expected / logits.numel(), rel=1e-9)
