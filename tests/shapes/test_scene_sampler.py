from itertools import pairwise

import numpy as np
import pytest
import torch

from mmn_plugin.shapes import SceneSampler, held_out_combinations
from mmn_plugin.structures import temporal_iou


@pytest.fixture(scope='module')
def scenes():
    sampler = SceneSampler(seed=3)
    return [sampler.sample(i, f'v{i}', training=True) for i in range(120)]


@pytest.fixture(scope='module')
def evaluation_scenes():
    sampler = SceneSampler(seed=3)
    return [sampler.sample(1000 + i, f't{i}', training=False) for i in range(60)]


def test_same_seed_gives_same_scene_and_another_seed_another():
    first, again = (SceneSampler(1).sample(7, 'v', True) for _ in range(2))
    other_video, other_seed = (
        SceneSampler(seed).sample(index, 'v', True) for seed, index in ((1, 8), (2, 7))
    )
    assert first.annotation() == again.annotation()
    np.testing.assert_array_equal(first.objects[0].tube(96), again.objects[0].tube(96))
    assert first.annotation() != other_video.annotation()
    assert first.annotation() != other_seed.annotation()


def test_training_never_shows_a_held_out_combination(scenes):
    held_out = held_out_combinations(3)
    assert len(held_out) == 30
    assert not any(e.combination in held_out for scene in scenes for e in scene.events)


def test_test_scenes_show_both_seen_and_unseen_combinations(evaluation_scenes):
    held_out = held_out_combinations(3)
    unseen = np.mean([e.combination in held_out for s in evaluation_scenes for e in s.events])
    assert 0.1 < unseen < 0.4


def test_each_pair_of_attributes_stays_in_training():
    held_out = held_out_combinations(0)
    for left_out in range(3):
        pairs = [tuple(v for i, v in enumerate(triple) if i != left_out) for triple in held_out]
        assert len(set(pairs)) == len(pairs)


def test_every_event_has_a_distractor_that_differs_in_one_attribute(scenes):
    for scene in scenes:
        triples = [event.combination for event in scene.events]
        assert len(triples) in (3, 4)
        assert len(set(triples)) == len(triples)
        for triple in triples:
            shared = [sum(a == b for a, b in zip(triple, other, strict=True)) for other in triples]
            assert shared.count(2) >= 1


@pytest.mark.parametrize('attribute', [0, 1, 2])
def test_one_attribute_alone_leaves_a_choice(scenes, attribute):
    chances = []
    for scene in scenes:
        values = [event.combination[attribute] for event in scene.events]
        chances += [1 / values.count(value) for value in values]
    assert np.mean(chances) < 0.55


def test_events_lie_in_the_video_and_hardly_overlap(scenes):
    for scene in scenes:
        spans = torch.tensor([[e.start, e.end] for e in scene.events])
        assert spans.min() >= 0
        assert spans.max() <= scene.duration
        iou = temporal_iou(spans[:, None], spans)
        assert iou.fill_diagonal_(0).max() <= 0.2 + 1e-6
    assert any(a.end > b.start for s in scenes for a, b in pairwise(s.events))


def test_when_an_event_happens_tells_nothing_about_its_action(scenes):
    middle = {}
    for scene in scenes:
        for event in scene.events:
            middle.setdefault(event.action, []).append((event.start + event.end) / 2)
    assert all(9 < np.mean(times) < 15 for times in middle.values())


DIRECTIONS = dict(left=(-1, 0), right=(1, 0), up=(0, -1), down=(0, 1))  # right and down


def test_objects_do_what_their_events_say(scenes):
    for scene in scenes:
        for event, i in zip(scene.events, scene.event_objects(), strict=True):
            item = scene.objects[i]
            first, last = round(event.start * scene.fps), round(event.end * scene.fps) - 1
            assert item.present[first : last + 1].all()
            moved = np.array([item.x[last] - item.x[first], item.y[last] - item.y[first]])
            grown = item.radius[last] / item.radius[first]
            if event.action in DIRECTIONS:
                direction = np.array(DIRECTIONS[event.action])
                assert moved @ direction > 0.2
                assert abs(moved @ direction[::-1]) < 1e-9
            elif event.action == 'grow':
                assert grown > 1.5
            elif event.action == 'shrink':
                assert grown < 0.67
            elif event.action == 'blink':
                assert 0.3 < item.lit[first : last + 1].mean() < 0.7
            else:
                assert event.action == 'loop'
                assert np.ptp(item.x[first : last + 1]) > 0.15
                assert np.ptp(item.y[first : last + 1]) > 0.15


def test_tubes_stay_in_the_frame_and_follow_the_object(scenes):
    item = scenes[0].objects[0]
    tube = item.tube(96)
    assert tube.dtype == np.int16
    assert tube[:, 0].tolist() == np.flatnonzero(item.present).tolist()
    assert (tube[:, 1] < tube[:, 3]).all()
    assert (tube[:, 2] < tube[:, 4]).all()
    assert tube[:, 1:].min() >= 0
    assert tube[:, 1:].max() <= 96
    center = (tube[:, 1] + tube[:, 3]) / 2
    assert np.abs(center - item.x[tube[:, 0]] * 96).max() <= 1
