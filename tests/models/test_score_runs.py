"""Moments from score curves."""

import pytest
import torch

from mmn_plugin.models import relative_threshold, score_runs
from mmn_plugin.structures import MomentGrid


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
