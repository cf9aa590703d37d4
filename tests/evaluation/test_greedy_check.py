import pytest
import torch
from reference.ranking import check_greedy

from mmn_plugin.models import nms, take_moments
from mmn_plugin.structures import MomentGrid

SPANS = torch.tensor([[0.0, 10.0], [0.0, 9.0], [20.0, 30.0], [40.0, 50.0]])
SCORES = torch.tensor([0.8, 0.7, 0.5, 0.0])
NONE = [float('nan')] * 2


def check(*moments, scores=SCORES, **kwargs):
    return check_greedy(SPANS, scores, torch.tensor(moments), 0.5, **kwargs)


def test_what_nms_gives_is_greedy_without_ties():
    grid = MomentGrid(16, [15])
    spans, scores = grid.spans(31.4), (torch.rand(20, grid.num_moments) * 6).round() / 6
    ranked, _ = take_moments(spans, scores, nms(spans, scores, 0.5, 5))
    for sentence, moments in zip(scores, ranked, strict=True):
        assert check_greedy(spans, sentence, moments, 0.5) == ('', 0)


def test_a_near_tie_may_go_either_way_and_is_counted():
    scores = torch.tensor([0.8, 0.8 * (1 + 5e-7), 0.5, 0.0])
    for first in ([0.0, 10.0], [0.0, 9.0]):
        reason, _ = check(first, [20.0, 30.0], NONE, scores=scores)
        assert not reason
    assert check([0.0, 10.0], [20.0, 30.0], NONE, scores=scores) == ('', 1)
    assert check([0.0, 9.0], [20.0, 30.0], NONE, scores=scores) == ('', 0)
    reason, _ = check([0.0, 10.0], [20.0, 30.0], NONE, scores=scores, rel_tol=1e-8)
    assert reason


@pytest.mark.parametrize(
    ('moments', 'reason'),
    [
        ([[20.0, 30.0], [0.0, 10.0], NONE], 'a candidate of 0.8'),
        ([[0.0, 10.0], [0.0, 9.0], NONE], 'suppressed'),
        ([[0.0, 10.0], [0.0, 10.0], NONE], 'suppressed'),
        ([[0.0, 10.0], [20.0, 30.0], [40.0, 50.0]], 'score 0'),
        ([[0.0, 10.0], [20.0, 31.0], NONE], 'is no moment'),
        ([[0.0, 10.0], NONE, NONE], 'a candidate is left'),
        ([[0.0, 10.0], [20.0, 30.0], NONE, [40.0, 50.0]], 'a later one is not'),
    ],
)
def test_other_rankings_are_refused_with_the_reason(moments, reason):
    assert reason in check(*moments)[0]
