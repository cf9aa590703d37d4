import pytest
import torch

from mmn_plugin.models import nms, rank, take_moments
from mmn_plugin.structures import MomentGrid, temporal_iou


def plain_nms(spans, scores, iou_threshold, top_n):
    """One sentence, one candidate at a time."""
    kept = []
    for i in scores.sort(descending=True, stable=True).indices.tolist():
        near = any(temporal_iou(spans[i], spans[k]) > iou_threshold for k in kept)
        if scores[i] != 0 and not near and len(kept) < top_n:
            kept.append(i)
    return kept + [-1] * (top_n - len(kept))


def scores_of(kind, shape):
    scores = torch.rand(shape)
    if kind == 'heavy ties':
        return (scores * 4).floor() / 4  # five values, a fifth of them 0
    if kind == 'mostly zero':
        return scores * (torch.rand(shape) < 0.02)
    if kind == 'negative':
        return (scores * 8).round() / 8 - 0.5
    return scores


@pytest.mark.parametrize('kind', ['random', 'heavy ties', 'mostly zero', 'negative'])
@pytest.mark.parametrize('iou_threshold', [0.4, 0.5, 1.0])
def test_batched_nms_equals_a_plain_greedy_loop(kind, iou_threshold):
    grid = MomentGrid(16, [15])
    durations = torch.tensor([30.7, 7.3, 100.0, 64.0])
    sentence_video = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    scores = scores_of(kind, (7, grid.num_moments))
    spans = grid.spans(durations)
    picks = nms(spans, scores, iou_threshold, 5, sentence_video)
    expected = [
        plain_nms(spans[v], scores[s], iou_threshold, 5) for s, v in enumerate(sentence_video)
    ]
    assert picks.tolist() == expected
    assert torch.equal(nms(spans[sentence_video], scores, iou_threshold, 5), picks)
    assert torch.equal(nms(spans[2], scores[3:6], iou_threshold, 5), picks[3:6])


def test_chunks_make_no_difference(monkeypatch):
    grid = MomentGrid(16, [7, 4])
    scores, sentence_video = torch.rand(23, grid.num_moments), torch.randint(4, (23,))
    spans = grid.spans(torch.rand(4) * 50 + 5)
    whole = nms(spans, scores, 0.5, 4, sentence_video)
    monkeypatch.setattr('mmn_plugin.models.ranking.CHUNK', 3 * grid.num_moments)
    assert torch.equal(nms(spans, scores, 0.5, 4, sentence_video), whole)
    assert torch.equal(nms(spans[sentence_video], scores, 0.5, 4), whole)
    assert torch.equal(
        nms(spans[1], scores, 0.5, 4)[sentence_video == 1], whole[sentence_video == 1]
    )


def test_ties_thresholds_and_nothing_to_rank():
    spans = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 30.0], [20.0, 29.0]])
    scores = torch.full((1, 4), 0.5)
    assert nms(spans, scores, 0.5, 3).tolist() == [[0, 2, -1]]  # the first of equal ones
    assert scores.eq(0.5).all()  # they are left as they were
    spans = torch.tensor([[0.0, 8.0], [0.0, 4.0], [0.0, 5.0]])  # IoU at the threshold stays
    assert nms(spans, torch.tensor([[3.0, 2.0, 1.0]]), 0.5, 3).tolist() == [[0, 1, -1]]
    assert nms(spans, torch.zeros(0, 3), 0.5, 5).shape == (0, 5)
    assert nms(spans, torch.zeros(2, 3), 0.5, 5).eq(-1).all()


def test_taken_moments_are_padded_with_nan():
    spans = torch.tensor([[[0.0, 4.0], [1.0, 5.0]], [[0.0, 8.0], [2.0, 10.0]]])
    scores = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    picks = torch.tensor([[1, 0], [0, -1], [-1, -1]])
    moments, taken = take_moments(spans, scores, picks, torch.tensor([0, 1, 1]))
    assert moments[0].tolist() == [[1.0, 5.0], [0.0, 4.0]]
    assert moments[1, 0].tolist() == [0.0, 8.0]
    assert moments[1, 1].isnan().all()
    assert moments[2].isnan().all()
    assert taken[0].tolist() == scores[0, [1, 0]].tolist()
    assert taken[1:].isnan().tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize('count', [0, 6])
def test_ranked_moments_are_those_of_nms_with_what_goes_beside(count):
    spans, scores = torch.rand(2, 9, 2).sort(-1).values * 20, torch.rand(count, 9)
    video, presence = torch.arange(count) % 2, torch.rand(count, dtype=torch.float64)
    curves = torch.rand(count, 4)
    found = rank(spans, scores, 0.1, 5, video, [presence, curves])
    wanted = take_moments(spans, scores, nms(spans, scores, 0.1, 5, video), video)
    for ours, expected in zip(found, [*wanted, presence, curves], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    assert count == 0 or found[1].isnan().any()  # some sentences keep fewer


def test_nan_among_the_scores_is_refused_when_moments_are_ranked():
    scores = torch.rand(3, 4)
    scores[1, 2] = torch.nan
    with pytest.raises(ValueError, match='NaN among the scores'):
        rank(torch.rand(4, 2).sort(-1).values, scores, 0.5, 2)
