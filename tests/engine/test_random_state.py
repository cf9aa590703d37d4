"""Random numbers are taken up where they were left."""

import contextlib
import random

import numpy as np
import torch

from mmn_plugin.engine.dist import isolated_random_state, random_state, set_random_state


def draw():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(1).item(),
        torch.randn(1).item(),
    ]


def test_the_numbers_go_on_through_a_checkpoint(tmp_path):
    random.gauss(0, 1), np.random.randn()  # both keep a second number back
    torch.save(random_state(), tmp_path / 'state.pth')
    expected = draw()
    draw()
    set_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert draw() == expected


def test_what_is_drawn_inside_leaves_no_trace():
    state = random_state()
    expected = draw()
    set_random_state(state)
    with contextlib.suppress(KeyError), isolated_random_state():
        draw()
        raise KeyError
    assert draw() == expected
