"""Moments from the order of a video's sentences and from where its features change."""

import numpy as np
import pytest

from mmn_plugin.datasets import MomentsInOrder
from mmn_plugin.errors import InputError


def moments_of(features, count, **settings):
    settings = dict(num_clips=8, change_weight=0.0, end_change=0.5) | settings
    results = dict(
        features=np.asarray(features, np.float32),
        sentences=['a'] * count,
        duration=80.0,
        video_id='v',
    )
    windows = MomentsInOrder(**settings).transform(results)['windows']
    return [window for (window,) in windows]


def two_scenes(change, rows=16):
    """Features that change once, after so many of 8 clips."""
    features = np.zeros((rows, 3), np.float32)
    features[: change * rows // 8, 0] = features[change * rows // 8 :, 1] = 1
    return features


def test_sentences_in_order_have_equal_parts():
    assert moments_of(np.ones((8, 3)), 1) == [[0, 80]]
    assert moments_of(np.ones((16, 3)), 4) == [[0, 20], [20, 40], [40, 60], [60, 80]]


def test_moments_begin_and_end_where_the_features_change():
    assert moments_of(two_scenes(4), 2, change_weight=0.3) == [[0, 40], [40, 80]]
    # the change lies a clip after the equal parts' edge, and moves it
    assert moments_of(two_scenes(5), 2, change_weight=0.3) == [[0, 50], [50, 80]]
    assert moments_of(two_scenes(5), 2, change_weight=0.0) == [[0, 40], [40, 80]]


def test_changes_at_the_ends_of_a_video_count_as_the_setting_says():
    still = np.ones((8, 3))
    assert moments_of(still, 2, change_weight=1.0, end_change=0.0) == [[0, 40], [40, 80]]
    assert moments_of(still, 2, change_weight=1.0, end_change=1.0) == [[0, 80], [0, 80]]


def test_timestamps_that_are_there_and_rows_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="'v'"):
        moments_of(np.ones((12, 3)), 2)
    results = dict(features=np.ones((8, 3)), sentences=['a'], duration=1.0, video_id='v')
    for there in (dict(moments=[[0, 1]]), dict(windows=[[[0, 1]]])):
        with pytest.raises(InputError, match='weak=True'):
            MomentsInOrder(8, 0.0, 0.0).transform(results | there)
