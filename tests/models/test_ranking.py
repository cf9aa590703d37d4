"""Ranked moments: NMS, and runs of score curves."""

import pytest
import torch

from mmn_plugin.models import (
    expected_iou,
    moment_scores,
    nms,
    rank,
    relative_threshold,
    score_runs,
    score_stretches,
    take_moments,
    with_first,
)
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


def test_the_contrastive_score_is_raised_to_its_power_also_just_below_a_cosine_of_minus_1():
    cosines, iou_scores = torch.tensor([[0.6, -0.2, -1.0000001]]), torch.tensor([[0.5, 1.0, 1.0]])
    expected = torch.tensor([[0.8**0.5 * 0.5, 0.4**0.5, 0.0]])  # (0.5 c + 0.5) ** power * p
    torch.testing.assert_close(moment_scores(cosines, iou_scores, 0.5), expected)


def test_nan_among_the_scores_is_refused_when_moments_are_ranked():
    scores = torch.rand(3, 4)
    scores[1, 2] = torch.nan
    with pytest.raises(ValueError, match='NaN among the scores'):
        rank(torch.rand(4, 2).sort(-1).values, scores, 0.5, 2)


def runs_of(curve, threshold):
    """Runs as (first, last) by a loop."""
    runs, first = set(), None
    for i, value in enumerate([*curve, float('-inf')]):
        if value >= threshold and first is None:
            first = i
        elif value < threshold and first is not None:
            runs.add((first, i - 1))
            first = None
    return runs


def found(curves, thresholds):
    grid = MomentGrid(curves.shape[1], [curves.shape[1] - 1])
    contrast, weight = score_runs(curves, thresholds, grid, halving=0.2)
    moments = list(zip(grid.starts.tolist(), grid.ends.tolist(), strict=True))
    return [
        {
            moments[p]: (contrast[s, p].item(), weight[s, p].item())
            for p in weight[s].nonzero()[:, 0].tolist()
        }
        for s in range(len(curves))
    ]


def test_runs_their_contrast_and_weight_equal_a_loop():
    curves, thresholds = torch.rand(40, 9, dtype=torch.float64), (0.5, 0.2, 0.8, 0.9)
    for curve, runs in zip(curves, found(curves, thresholds), strict=True):
        low, high = curve.min(), curve.max()
        wanted = {}
        for share in sorted(thresholds, key=lambda share: -abs(share - 0.5)):
            for run in runs_of(curve, low + share * (high - low)):
                wanted[run] = 0.5 ** (abs(share - 0.5) / 0.2)  # the nearest threshold's, the last
        assert {run: weight for run, (_, weight) in runs.items()} == pytest.approx(wanted)
        for (first, last), (contrast, _) in runs.items():
            inside = torch.zeros(9, dtype=torch.bool)
            inside[first : last + 1] = True
            assert contrast == pytest.approx((curve[inside].mean() - curve[~inside].mean()).item())


def test_the_first_threshold_decides_although_narrower_runs_have_more_contrast():
    curve = torch.tensor([[0.0, 0.2, 0.4, 0.6, 0.7, 1.0, 0.7, 0.5, 0.31, 0.1]])
    ((run, (contrast, weight)),) = found(curve, (0.69,))[0].items()
    assert (run, weight) == ((4, 6), 1.0)
    nested = found(curve, (0.69, 0.3, 0.95))[0]
    assert set(nested) == {(4, 6), (2, 8), (5, 5)}  # one inside the other
    assert max(nested, key=lambda run: nested[run][0]) == (5, 5)
    assert nested[5, 5][0] > contrast
    assert max(nested, key=lambda run: (0.5 * nested[run][0] + 0.5) * nested[run][1]) == (4, 6)


def test_a_flat_curve_is_one_run_over_the_whole_video():
    assert found(torch.full((1, 5), 0.3), (0.2, 0.5)) == [{(0, 4): (0.0, 1.0)}]


def test_the_highest_score_always_reaches_the_threshold():
    scores = torch.rand(2000, 3)
    for share in (0.1, 0.7, 0.999999):
        assert (scores >= relative_threshold(scores, share)).any(1).all()


def test_stretches_stand_out_of_their_surroundings_as_a_loop_says():
    curves, grid = torch.rand(3, 9, dtype=torch.float64), MomentGrid(9, [8])
    found = score_stretches(curves, grid, 0.5, 0.1)
    for place, (first, last) in enumerate(zip(grid.starts, grid.ends, strict=True)):
        length = int(last + 1 - first)
        inside = curves[:, first : last + 1].mean(1)
        before = curves[:, max(0, first - length) : first]
        around = torch.cat([before, curves[:, last + 1 : last + 1 + length]], 1)
        around = around.mean(1) if length < 9 else inside
        expected = inside - 0.5 * around + 0.1 * torch.tensor(length / 9).log()
        torch.testing.assert_close(found[:, place], expected, check_dtype=False)


def expected_by_definition(spans, scores, power):
    weights = [score**power for score in scores.tolist()]
    return [
        sum(w * temporal_iou(one, other).item() for w, other in zip(weights, spans, strict=True))
        / sum(weights)
        if score
        else 0.0
        for one, score in zip(spans, scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize('power', [0.5, 1.0, 6.0])
def test_expected_iou_is_the_mean_over_all_moments_weighted_by_score(power, monkeypatch):
    grid = MomentGrid(6, [5])
    sentence_video = torch.tensor([0, 0, 1])
    scores = torch.rand(3, grid.num_moments, dtype=torch.float64)
    scores[1, ::3] = 0
    spans = grid.spans(torch.tensor([30.0, 7.0])).double()
    wanted = torch.tensor(
        [expected_by_definition(spans[v], scores[s], power) for s, v in enumerate(sentence_video)]
    )
    found = expected_iou(spans, scores, power, sentence_video)
    torch.testing.assert_close(found, wanted.double())
    for one, row in zip(sentence_video, range(3), strict=True):  # spans that sentences share
        alone = expected_iou(spans[one], scores[row : row + 1], power)
        torch.testing.assert_close(alone[0], found[row])
    monkeypatch.setattr('mmn_plugin.models.ranking.CHUNK', grid.num_moments**2)
    torch.testing.assert_close(expected_iou(spans, scores, power, sentence_video), found)


def test_the_moment_amid_like_ones_has_more_expected_iou_than_a_lone_better_one():
    spans = torch.tensor([[0.0, 4.0], [10.0, 16.0], [11.0, 17.0], [12.0, 18.0]])
    scores = torch.tensor([[0.5, 0.48, 0.4, 0.48]])
    assert scores.argmax() == 0
    assert expected_iou(spans, scores, 1.0).argmax() == 2
    assert expected_iou(spans, scores, 200.0).argmax() == 0


def test_expected_iou_of_tiny_scores_and_of_moments_that_are_no_moments():
    spans = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 0.0]])
    scores = torch.tensor([[1e-30, 5e-31, 0.0], [0.0, 0.0, 0.0]])
    found = expected_iou(spans, scores, 4.0)
    torch.testing.assert_close(found[0], torch.tensor([16 / 17, 1 / 17, 0.0]))
    assert found[1].tolist() == [0, 0, 0]
    assert expected_iou(spans[:0], scores[:, :0], 1.0).shape == (2, 0)


def test_the_first_moment_is_chosen_and_the_others_keep_their_order():
    scores = torch.tensor([[0.2, 1.0, 0.9, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = with_first(scores, torch.tensor([0, 2]))
    assert found.argsort(dim=1, descending=True, stable=True)[0].tolist() == [0, 1, 3, 2]
    assert found[0].amax() == 1
    torch.testing.assert_close(found[0, 1:], scores[0, 1:])
    assert found[1].tolist() == [0, 0, 0, 0]
