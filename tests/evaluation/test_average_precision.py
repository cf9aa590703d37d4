"""Average precision of ranked windows against its definition, window by window."""

import math

import numpy as np
import pytest
import torch
from helpers.made_up_results import precision_by_definition
from torch.nn.utils.rnn import pad_sequence

from mmn_plugin.evaluation.recall import PRECISION_THRESHOLDS, ranked_precision

NAN = math.nan


def drawn(generator, count):
    start = torch.randint(0, 30, (count, 1), generator=generator)
    length = torch.randint(1, 16, (count, 1), generator=generator)
    return torch.cat([start, start + length], 1).float()


def test_random_rankings_have_the_precision_of_the_definition():
    generator = torch.Generator().manual_seed(3)
    counts = torch.randint(0, 14, (60, 2), generator=generator).tolist()
    ranked = [drawn(generator, moments) for moments, _ in counts]
    windows = [drawn(generator, 1 + number % 5) for _, number in counts]
    found = ranked_precision(
        *(pad_sequence(lists, True, padding_value=NAN) for lists in (ranked, windows))
    )
    expected = [
        [
            precision_by_definition(row.tolist(), true.tolist(), threshold)
            for threshold in PRECISION_THRESHOLDS
        ]
        for row, true in zip(ranked, windows, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert 0 < found.mean() < found[:, 0].mean() < 1


@pytest.mark.parametrize(
    ('ranked', 'expected'),
    [
        ([[0, 10], [20, 30]], 1.0),
        ([[40, 50], [0, 10], [20, 30]], 2 / 3),  # precisions 0, 1/2, 2/3: the later is higher
        ([[0, 10], [1, 10], [20, 30]], 0.5 + 0.5 * 2 / 3),  # a window is found once
        ([[0, 10], [NAN, NAN]], 0.5),
        ([[NAN, NAN], [NAN, NAN]], 0.0),
        ([[40, 50]] * 10 + [[0, 10]], 0.0),  # the first ten count
    ],
)
def test_of_two_windows(ranked, expected):
    windows = torch.tensor([[[0.0, 10.0], [20.0, 30.0], [NAN, NAN]]])
    found = ranked_precision(torch.tensor([ranked], dtype=torch.float32), windows)
    assert found.tolist() == [[pytest.approx(expected)] * 10]


@pytest.mark.filterwarnings('error')
def test_instants_have_no_iou_and_warn_of_nothing():
    ranked = torch.tensor([[[1.0, 1.0], [2.0, 4.0]]])
    windows = torch.tensor([[[1.0, 1.0], [2.0, 4.0], [NAN, NAN]]])
    precision = ranked_precision(ranked, windows)
    assert precision.tolist() == [
        [0.25] * len(PRECISION_THRESHOLDS)
    ]  # one of two, at the second rank
