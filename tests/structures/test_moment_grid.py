"""Which moments exist, in seconds and on the map."""

import pytest
import torch

from mmn_plugin.structures import MomentGrid

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
    iou = grid.iou(grid.spans(32.0)[target : target + 1], 32.0)
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
