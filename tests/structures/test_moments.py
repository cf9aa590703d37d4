"""Which moments exist, in seconds and on the map; IoU of tubes against its definition as loops."""

import numpy as np
import pytest
import torch
from helpers.made_up_tubes import random_tube

from mmn_plugin.structures import (
    MomentGrid,
    box_iou,
    cell_bounds,
    cell_iou,
    nms_within,
    temporal_iou,
    tube_iou,
)

PUBLISHED = {'tacos': (128, [15, 8, 8, 8]), 'charades': (16, [15]), 'activitynet': (64, [15, 8, 8])}


def cells_by_definition(num_clips, pooling_counts):
    """The loop of the reference page."""
    cells, offset = {(i, i) for i in range(num_clips)}, 0
    for level, count in enumerate(pooling_counts):
        stride = 2**level
        for _ in range(count):
            offset += stride
            cells |= {(i, i + offset) for i in range(0, num_clips - offset, stride)}
    return sorted(cells)


@pytest.mark.parametrize('dataset', PUBLISHED)
def test_cells_are_those_of_the_definition_in_row_major_order(dataset):
    grid = MomentGrid(*PUBLISHED[dataset])
    cells = list(zip(grid.starts.tolist(), grid.ends.tolist(), strict=True))
    assert cells == cells_by_definition(*PUBLISHED[dataset])
    assert grid.num_moments == len(cells) == int(grid.mask.sum())


def test_a_moment_runs_from_the_start_of_its_first_to_the_end_of_its_last_clip():
    grid = MomentGrid(4, [3])
    spans = dict(
        zip(
            zip(grid.starts.tolist(), grid.ends.tolist(), strict=True),
            grid.spans(10.0).tolist(),
            strict=True,
        )
    )
    assert spans[0, 3] == [0.0, 10.0]
    assert spans[1, 1] == [2.5, 5.0]
    assert spans[1, 2] == [2.5, 7.5]


def test_spans_of_several_videos_equal_those_of_each():
    grid = MomentGrid(16, [15])
    durations = torch.tensor([3.7, 121.03])
    together = grid.spans(durations)
    assert together.shape == (2, grid.num_moments, 2)
    for spans, duration in zip(together, durations, strict=True):
        assert torch.equal(spans, grid.spans(duration.item()))


def test_a_map_holds_each_value_in_its_cell_and_the_fill_elsewhere():
    grid = MomentGrid(8, [3, 1])
    values = torch.arange(2 * grid.num_moments).reshape(2, -1).float()
    dense = grid.to_map(values, fill=-1)
    assert torch.equal(dense[:, grid.starts, grid.ends], values)
    assert (dense[:, ~grid.mask] == -1).all()


def test_iou_of_a_moment_with_itself_is_one_and_its_best_cell_is_found():
    grid = MomentGrid(16, [15])
    target = 40
    iou = grid.best_iou([grid.spans(32.0)[target : target + 1]], 32.0)
    assert iou.shape == (1, grid.num_moments)
    assert iou[0].argmax() == target
    assert iou[0, target] == 1


@pytest.mark.parametrize('counts', [[2, 0, 1], [4, 0, 2], [-1], [0, 0, 1]])
def test_counts_whose_strides_do_not_double_are_refused(counts):
    with pytest.raises(ValueError, match='strides can only double'):
        MomentGrid(32, counts)


def test_counts_beyond_the_last_clip_are_refused():
    with pytest.raises(ValueError, match='num_clips=8'):
        MomentGrid(8, [8])


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


@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0, None])
def test_suppressed_is_what_overlaps_a_better_moment_of_its_own_group(threshold):
    draw = torch.Generator().manual_seed(0)
    groups = torch.randint(3, (4, 60), generator=draw)
    groups[1, 40:] = groups[3] = -1  # fewer moments, and none
    starts = torch.rand(4, 60, 1, generator=draw) * 10
    spans = torch.cat([starts, starts + torch.rand(4, 60, 1, generator=draw) * 5], -1)
    spans[2, 3] = spans[2, 4] = 1.0  # instants
    found = nms_within(groups, spans, threshold)
    for place in range(4):
        kept = []
        for rank in torch.nonzero(groups[place] >= 0).flatten().tolist():
            own = [k for k in kept if groups[place, k] == groups[place, rank]]
            close = temporal_iou(spans[place, own], spans[place, rank])
            if not (len(own) if threshold is None else (close > threshold).any()):
                kept.append(rank)
        assert torch.nonzero(found[place]).flatten().tolist() == kept
    assert nms_within(groups[:, :0], spans[:, :0], threshold).shape == (4, 0)
