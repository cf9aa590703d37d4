"""Moments from score curves."""
import itertools

import pytest
import torch

from mmn_plugin.ranking import relative_threshold, score_runs
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
    contrast, is_run = score_runs(curves, thresholds, grid)
    moments = list(zip(grid.starts.tolist(), grid.ends.tolist(), strict=True))
    return [{moments[p]: contrast[s, p].item() for p in is_run[s].nonzero()[:, 0].tolist()}
            for s in range(len(curves))]


def test_runs_and_their_contrast_equal_a_loop():
    curves, thresholds = torch.rand(40, 9, dtype=torch.float64), (.2, .5, .8)
    for curve, runs in zip(curves, found(curves, thresholds), strict=True):
        low, high = curve.min(), curve.max()
        wanted = set(itertools.chain(*(runs_of(curve, low + share * (high - low))
                                       for share in thresholds)))
        assert set(runs) == wanted
        for (first, last), contrast in runs.items():
            inside = torch.zeros(9, dtype=torch.bool)
            inside[first:last + 1] = True
            assert contrast == pytest.approx((curve[inside].mean() - curve[~inside].mean()).item())


def test_a_flat_curve_is_one_run_over_the_whole_video():
    assert found(torch.full((1, 5), 0.3), (.2, .5)) == [{(0, 4): 0.}]


def test_the_highest_score_always_reaches_the_threshold():
    scores = torch.rand(2000, 3)
    for share in (.1, .7, .999999):
        assert (scores >= relative_threshold(scores, share)).any(1).all()
