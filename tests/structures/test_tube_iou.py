"""Spatio-temporal IoU against its definition, written as loops."""

import numpy as np
import pytest
from helpers.made_up_tubes import random_tube

from mmn_plugin.structures import MomentGrid, box_iou, cell_bounds, cell_iou, tube_iou


def by_definition(tube, truth):
    """vIoU, tIoU: a loop over frames."""
    ours = {row[0]: row[1:].astype(float) for row in tube}
    theirs = {row[0]: row[1:].astype(float) for row in truth}
    total = 0.0
    for frame in ours.keys() & theirs.keys():
        a, b = ours[frame], theirs[frame]
        width = min(a[2], b[2]) + 1 - max(a[0], b[0])
        height = min(a[3], b[3]) + 1 - max(a[1], b[1])
        inside = max(width, 0) * max(height, 0)
        areas = sum((x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b))
        total += inside / (areas - inside)
    union = len(ours.keys() | theirs.keys())
    return total / union, len(ours.keys() & theirs.keys()) / union


def test_boxes_include_both_edges():
    assert box_iou([0, 0, 9, 9], [0, 0, 9, 9]) == 1
    assert box_iou([0, 0, 9, 9], [9, 9, 18, 18]) == pytest.approx(1 / 199)
    assert box_iou([0, 0, 9, 9], [10, 0, 19, 9]) == 0
    assert box_iou([0, 0, 9, 9], [30, 30, 39, 39]) == 0  # two negative sides are no area
    assert box_iou([-5, -5, 4, 4], [0, 0, 9, 9]) == pytest.approx(25 / 175)  # outside the picture


@pytest.mark.parametrize('seed', range(4))
def test_every_cell_has_the_iou_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    grid = MomentGrid(16, [15])
    truth = random_tube(rng, 40, 10)
    tubes = [random_tube(rng, n, start) for n, start in ((60, 0), (7, 30), (1, 20), (33, 80))]
    if seed % 2:  # missing frames, in candidates and in the ground truth
        truth = truth[rng.random(len(truth)) < 0.7]
        tubes = [tube[rng.random(len(tube)) < 0.7] if len(tube) > 10 else tube for tube in tubes]
    found = cell_iou(grid, tubes, truth)
    bounds = cell_bounds(grid, [len(tube) for tube in tubes])
    expected = [
        [
            by_definition(tube[first:last], truth)[0] if last > first else 0.0
            for first, last in bounds[t]
        ]
        for t, tube in enumerate(tubes)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[:3].max() > 0
    assert (found[3] == 0).all()  # shares no frame
    for tube in tubes:
        np.testing.assert_allclose(tube_iou(tube, truth), by_definition(tube, truth))


def test_boundaries_are_rounded_half_to_even():
    bounds = cell_bounds(MomentGrid(4, [3]), [2, 6])
    diagonal = [0, 4, 7, 9]  # cells (0, 0), (1, 1), (2, 2), (3, 3), row by row
    assert bounds[0, diagonal].tolist() == [[0, 0], [0, 1], [1, 2], [2, 2]]
    assert bounds[1, diagonal].tolist() == [[0, 2], [2, 3], [3, 4], [4, 6]]


def test_an_empty_answer_covers_nothing():
    truth = random_tube(np.random.default_rng(0), 5)
    assert tube_iou(np.zeros((0, 5), np.float32), truth) == (0, 0)
