"""Windows of long videos, and the moments that they hold together."""

import numpy as np
import pytest
import torch

from mmn_plugin.apis.long_video import CUT_TRUST, LongVideo, WindowPlan
from mmn_plugin.structures import MomentGrid

GRID = MomentGrid(8, [7])


def plan(duration=100.0, window=16.0, overlap=0.75, rows_per_second=2):
    rows = int(duration * rows_per_second)
    return WindowPlan(GRID, rows, 1 / rows_per_second, duration, window, overlap)


def test_a_short_video_is_one_window_with_the_moments_of_the_grid():
    for window in (None, 20.0, 100.0):
        whole = WindowPlan(GRID, 33, 20 / 33, 20.0, window)
        assert len(whole) == 1
        assert torch.equal(whole.spans, GRID.spans(20.0))
        assert (whole.trust == 1).all()
        assert len(whole.features(np.ones((33, 2)), 0)) == 33


@pytest.mark.parametrize('overlap', [0.0, 0.5, 0.75])
def test_every_moment_exists_once_and_lies_where_its_window_saw_it(overlap):
    windows = plan(overlap=overlap)
    spans = [tuple(span) for span in windows.spans.tolist()]
    assert len(set(spans)) == len(spans)
    step = 16 * (1 - overlap)
    for index in range(len(windows)):
        start = min(step * index, 84)
        expected = (GRID.spans(16.0) + start).clamp(max=100.0)
        torch.testing.assert_close(windows.spans[windows.place[index]], expected)
    assert set(windows.place.flatten().tolist()) == set(range(len(spans)))


def test_windows_reach_the_end_of_a_video_of_any_length():
    for duration in (24.1, 31.99, 33.0, 40.3, 99.7):
        windows = plan(duration)
        assert windows.spans.max() == pytest.approx(duration)
        assert (windows.spans[:, 0] < windows.spans[:, 1]).all()
        video = np.arange(int(duration * 2))[:, None]
        rows = [windows.features(video, index) for index in range(len(windows))]
        assert {len(part) for part in rows} == {32}
        assert rows[-1][-1] == video[-1]
        assert set(np.concatenate(rows).flatten()) == set(range(len(video)))


def test_a_moment_that_a_window_cuts_off_counts_only_where_no_other_sees_it():
    windows = plan(overlap=0.5)
    length = windows.spans[:, 1] - windows.spans[:, 0]
    assert (windows.trust[length < 8] == 1).all()  # up to half a window is seen whole
    assert (windows.trust[length == 16] == CUT_TRUST).sum() > 0
    last = len(GRID.ends) - 1  # of one clip, at the end of its window
    assert windows.weight[[0, -1], last].tolist() == [0, 1]  # the video's end cuts nothing off
    assert windows.weight[[0, 1], 0].tolist() == [1, 0]


def test_embeddings_of_a_moment_are_the_mean_over_the_windows_that_see_it_whole():
    windows = plan(40.0, overlap=0.75)
    values = torch.randn(len(windows), GRID.num_moments, 3)
    for index in range(len(windows)):
        windows.add(index, dict(iou=values[index]))
    means = windows.mean()['iou']
    for moment in (0, 10, 50, len(windows.spans) - 1):
        seen = (windows.place == moment) & (windows.weight > 0)
        torch.testing.assert_close(means[moment], values[seen].mean(0))


def test_only_videos_longer_than_those_of_training_are_cut_into_windows():
    assert LongVideo().window_of(1e5) is None
    assert LongVideo(window=24.0).window_of(36.0) is None
    assert LongVideo(window=24.0).window_of(36.1) == 24.0
    assert LongVideo(window=24.0, longest=100.0).window_of(99.0) is None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(window=0.0), 'window=0'),
        (dict(window=-3), 'window=-3'),
        (dict(overlap=1.0), 'overlap=1'),
        (dict(overlap=-0.1), 'overlap=-0.1'),
    ],
)
def test_windows_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LongVideo(**settings)
