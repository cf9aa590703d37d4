"""Clips around the middle of every stride."""

import numpy as np
import pytest
from helpers.alive import Alive

from mmn_plugin.features import sliding_windows


def clips(count, *arguments):
    return [clip.tolist() for clip in sliding_windows(map(np.array, range(count)), *arguments)]


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ((7, 3, 3), [[0, 1, 2], [3, 4, 5], [6, 6, 6]]),  # as long as their stride
        ((6, 2, 6), [[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 5, 5]]),  # longer
        ((12, 6, 2), [[2, 3], [8, 9]]),  # shorter: in the middle of their stride
        ((5, 4, 1), [[1], [4]]),
        ((9, 4, 3, 2), [[0, 1, 3], [3, 5, 7], [7, 8, 8]]),  # every second frame
        ((0, 4, 4), []),
    ],
)
def test_clips_have_the_middle_of_their_stride_and_stand_still_beyond_the_ends(arguments, expected):
    assert clips(*arguments) == expected


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
    alive = Alive()
    frames = alive.watch(np.zeros(1) for _ in range(500))
    assert sum(1 for _ in sliding_windows(frames, 8, 8, 4)) == 63
    assert 8 < alive.most < 2 * (8 + 8 * 4)
