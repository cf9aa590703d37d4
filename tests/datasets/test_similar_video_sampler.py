"""Batches of videos that resemble each other."""

import math
from collections import Counter

import numpy as np
import pytest
from mmaction.registry import DATA_SAMPLERS

from mmn_plugin.datasets import SimilarVideoSampler


def made_up(kinds, of_each, seed=0):
    """Unit vectors of videos of some kinds, and the kind of each; kinds are far apart."""
    rng = np.random.default_rng(seed)
    kind = rng.permutation(np.repeat(np.arange(kinds), of_each))
    vectors = np.eye(kinds)[kind] + 0.01 * rng.standard_normal((len(kind), kinds))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), kind


def build(vectors, seed=1, **settings):
    settings = dict(type='SimilarVideoSampler', seed=seed, **settings)
    sampler = DATA_SAMPLERS.build(settings, default_args=dict(dataset=range(len(vectors))))
    sampler.vectors = vectors
    return sampler


def test_without_random_ones_a_group_is_of_videos_that_are_alike():
    vectors, kind = made_up(kinds=5, of_each=12)
    order = [*build(vectors, group_size=4, share=0.0)]
    assert sorted(order) == [*range(60)]
    groups = kind[order].reshape(-1, 4)
    assert (groups == groups[:, :1]).all()
    assert (groups[1:, 0] != groups[:-1, 0]).any()  # groups are in random order


def test_a_share_of_each_group_is_random():
    vectors, kind = made_up(kinds=16, of_each=24)
    sampler = build(vectors, group_size=16, share=0.25)
    most = [max(Counter(group).values()) for group in kind[[*sampler]].reshape(-1, 16).tolist()]
    # 12 of a kind, and of 4 random ones a sixteenth; what is left of several kinds makes the rest
    assert np.median(most) == 12
    assert max(most) <= 16
    random = [*build(vectors, group_size=16, share=0.85)]  # 2 alike
    assert max(max(Counter(g).values()) for g in kind[random].reshape(-1, 16).tolist()) < 9


@pytest.mark.parametrize('share', [0.0, 0.3])
def test_each_video_comes_once_in_an_epoch_whatever_groups_leave_over(share):
    vectors, _ = made_up(kinds=3, of_each=9)
    sampler = build(vectors, group_size=8, share=share)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen.append([*sampler])
        assert sorted(seen[-1]) == [*range(27)]
        assert [*sampler] == seen[-1]
    assert seen[0] != seen[1] != seen[2]


def test_the_order_follows_from_seed_and_vectors():
    vectors, _ = made_up(kinds=3, of_each=8)
    others, _ = made_up(kinds=3, of_each=8, seed=1)
    settings = dict(group_size=4, share=0.25)
    first = [*build(vectors, **settings)]
    assert [*build(vectors, **settings)] == first
    assert [*build(others, **settings)] != first
    (sampler := build(vectors, **settings)).seed = 2  # as a resumed run sets it
    assert [*sampler] == [*build(vectors, seed=2, **settings)] != first


def test_processes_share_out_a_group_as_large_as_their_batches(monkeypatch):
    vectors, _ = made_up(kinds=3, of_each=9)
    whole, parts = [*build(vectors, group_size=8)], []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        parts.append([*build(vectors, group_size=8)])
    for step in range(3):  # two processes with batches of 4
        batches = [part[4 * step : 4 * step + 4] for part in parts]
        assert {*batches[0], *batches[1]} == {*whole[8 * step : 8 * step + 8]}
    assert parts[0] + parts[1] == [*whole[::2], *whole[1::2], whole[0]]  # one more, to be even


@pytest.mark.parametrize(
    'settings',
    [
        dict(group_size=1),
        dict(group_size=9),
        dict(group_size=4, share=0.7),
        dict(share=-0.5),
        dict(share=math.nan),
    ],
)
def test_groups_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match='at most the 8 videos of the training'):
        SimilarVideoSampler(range(8), **dict(group_size=4) | settings)


def test_without_vectors_it_says_which_hook_makes_them():
    with pytest.raises(ValueError, match='SimilarVideoHook'):
        iter(SimilarVideoSampler(range(8), group_size=4))
