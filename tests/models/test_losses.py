"""The losses against the reference page's formulas, written as loops."""
import math

import pytest
import torch
import torch.nn.functional as F

from mmn_plugin.models import IoURegressionLoss, MutualMatchingLoss
from mmn_plugin.structures import temporal_iou

SETTINGS = dict(num_positive=2, negative_iou=0.5, sentence_removal_iou=0.5, margin=0.3,
                temperature_video=0.1, temperature_sentence=0.2)
P, J = 7, 5


def random_batch(counts):
    """Normalised embeddings and targets of videos with so many sentences each."""
    videos, sentences = len(counts), sum(counts)
    starts = torch.rand(sentences, dtype=torch.float64)
    return dict(
        moments=F.normalize(torch.randn(videos, P, J, dtype=torch.float64), dim=-1),
        sentences=F.normalize(torch.randn(sentences, J, dtype=torch.float64), dim=-1),
        sentence_video=torch.arange(videos).repeat_interleave(torch.tensor(counts)),
        iou=torch.rand(sentences, P, dtype=torch.float64),
        ground_truth=torch.stack([starts, starts + torch.rand_like(starts) + .1], dim=1))


def losses_by_definition(moments, sentences, sentence_video, iou, ground_truth):
    c, vid, sent = SETTINGS, [], []
    for s, video in enumerate(sentence_video.tolist()):
        for p in iou[s].topk(c['num_positive']).indices.tolist():
            positive = moments[video, p] @ sentences[s]
            total = 0
            for k, other in enumerate(sentence_video.tolist()):
                overlaps = temporal_iou(ground_truth[k], ground_truth[s])
                if k != s and other == video and overlaps >= c['sentence_removal_iou']:
                    continue
                similarity = moments[video, p] @ sentences[k] - (c['margin'] if k == s else 0)
                total = total + (similarity / c['temperature_video']).exp()
            vid.append(total.log() - (positive - c['margin']) / c['temperature_video'])
            t = c['temperature_sentence']
            total = ((positive - c['margin']) / t).exp() + 1e-6
            for v in range(len(moments)):
                similarity = moments[v] @ sentences[s]
                q = (iou[s] < c['negative_iou']).double() if v == video else torch.ones(P)
                total = total + (q * similarity / t).exp().sum()
            sent.append(total.log() - (positive - c['margin']) / t)
    return torch.stack(vid).mean(), torch.stack(sent).mean()


@pytest.mark.parametrize('counts', [[1], [3], [1, 1], [4, 1, 2]])
def test_matching_losses_and_gradients_equal_the_formulas(counts):
    batch = random_batch(counts)
    for name in ('moments', 'sentences'):
        batch[name].requires_grad_()
    inputs = [batch['moments'], batch['sentences']]
    ours, expected = MutualMatchingLoss(**SETTINGS)(**batch), losses_by_definition(**batch)
    for value, reference in zip(ours, expected, strict=True):
        assert value.item() == pytest.approx(reference.item(), rel=1e-9)
        gradients = torch.autograd.grad(value, inputs, retain_graph=True)
        references = torch.autograd.grad(reference, inputs, retain_graph=True)
        for gradient, wanted in zip(gradients, references, strict=True):
            torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-10)


def test_a_sentence_of_the_same_moment_is_no_negative_but_one_of_another_video_is():
    batch = random_batch([2, 1])
    batch['ground_truth'][:] = torch.tensor([1., 2.])
    is_negative = MutualMatchingLoss(**SETTINGS).is_negative_sentence(
        batch['sentence_video'], batch['ground_truth'])
    assert is_negative.tolist() == [[False, False, True], [False, False, True],
                                    [True, True, False]]


def test_iou_loss_is_cross_entropy_with_the_scaled_iou():
    logits = torch.randn(3, P, dtype=torch.float64)
    iou = torch.rand(3, P, dtype=torch.float64)
    loss = IoURegressionLoss(min_iou=0.3, max_iou=0.7)(logits, iou).item()
    expected = 0
    for x, y in zip(logits.flatten().tolist(), iou.flatten().tolist(), strict=True):
        score, target = 1 / (1 + math.exp(-x)), min(max((y - .3) / .4, 0), 1)
        expected -= target * math.log(score) + (1 - target) * math.log(1 - score)
    assert loss == pytest.approx(expected / logits.numel(), rel=1e-9)
