"""Clips around the middle of every stride."""

import numpy as np
import pytest

from mmn_plugin.features import sliding_windows


def clips(count, *arguments):
    return [clip.tolist() for clip in sliding_windows(map(np.array, range(count)), *arguments)]


def test_clips_as_long_as_their_stride_follow_one_another():
    assert clips(7, 3, 3) == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]


def test_longer_clips_have_the_middle_of_their_stride_and_stand_still_beyond_the_ends():
    assert clips(6, 2, 6) == [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 5, 5]]


def test_shorter_clips_lie_in_the_middle_of_their_stride():
    assert clips(12, 6, 2) == [[2, 3], [8, 9]]
    assert clips(5, 4, 1) == [[1], [4]]


def test_every_so_manyth_frame():
    assert clips(9, 4, 3, 2) == [[0, 1, 3], [3, 5, 7], [7, 8, 8]]


@pytest.mark.parametrize('stride', [1, 2, 3, 5, 16])
@pytest.mark.parametrize(('clip_len', 'interval'), [(1, 1), (4, 1), (16, 1), (4, 3), (3, 8)])
@pytest.mark.parametrize('count', [1, 2, 15, 40])
def test_any_numbers_agree_with_the_definition(count, stride, clip_len, interval):
    begin = (stride - (clip_len - 1) * interval - 1) // 2
    expected = [
        [min(max(k * stride + begin + i * interval, 0), count - 1) for i in range(clip_len)]
        for k in range(-(-count // stride))
    ]
    assert clips(count, stride, clip_len, interval) == expected


def test_no_more_frames_are_held_than_a_clip_and_a_stride():
    alive = most = 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def frames():
        nonlocal alive, most
        for _ in range(500):
            alive += 1
            most = max(most, alive)
            yield np.zeros(1).view(Frame)

    assert sum(1 for _ in sliding_windows(frames(), 8, 8, 4)) == 63
    assert most < 2 * (8 + 8 * 4)


def test_nothing_gives_no_clip():
    assert clips(0, 4, 4) == []
