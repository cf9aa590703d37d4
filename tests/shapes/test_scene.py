"""Scenes in which no single word finds the moment, and their pictures."""

import hashlib
import json
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from mmn_plugin.shapes import (
    COLORS,
    SHAPES,
    Scene,
    SceneObject,
    SceneRenderer,
    SceneSampler,
    held_out_combinations,
)
from mmn_plugin.shapes.corpus import write_video
from mmn_plugin.structures import temporal_iou


@pytest.fixture(scope='module')
def scenes():
    sampler = SceneSampler(seed=3)
    return [sampler.sample(i, f'v{i}', training=True) for i in range(120)]


def test_same_seed_gives_same_scene_and_another_seed_another():
    first, again, other_video, other_seed = (
        SceneSampler(seed).sample(index, 'v', True)
        for seed, index in ((1, 7), (1, 7), (1, 8), (2, 7))
    )
    assert first.annotation() == again.annotation()
    np.testing.assert_array_equal(first.objects[0].tube(96), again.objects[0].tube(96))
    assert first.annotation() not in (other_video.annotation(), other_seed.annotation())


def test_scenes_of_the_corpus_stay_what_published_figures_were_measured_on():
    sampler = SceneSampler(seed=0)
    entries = [sampler.sample(i, f'v{i}', i < 40).annotation() for i in range(60)]
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    assert digest == '902fb0c3f8ab4b5f9b730222095a1b6f6fbc2a629c2db775bb98473505fa669d'


def test_training_never_shows_a_held_out_combination_but_every_pair_of_attributes(scenes):
    held_out = held_out_combinations(3)
    assert len(held_out) == 30
    assert not any(e.combination in held_out for scene in scenes for e in scene.events)
    sampler = SceneSampler(seed=3)
    of_test = [sampler.sample(1000 + i, f't{i}', training=False) for i in range(60)]
    unseen = np.mean([e.combination in held_out for scene in of_test for e in scene.events])
    assert 0.1 < unseen < 0.4
    for left_out in range(3):
        pairs = {triple[:left_out] + triple[left_out + 1 :] for triple in held_out}
        assert len(pairs) == len(held_out)


def test_every_event_has_a_distractor_that_differs_in_one_attribute(scenes):
    chances = []
    for scene in scenes:
        triples = [event.combination for event in scene.events]
        assert len(triples) == len(set(triples)) in (3, 4)
        for triple in triples:
            shared = [sum(a == b for a, b in zip(triple, other, strict=True)) for other in triples]
            assert shared.count(2) >= 1
            chances.append([1 / [t[i] for t in triples].count(triple[i]) for i in range(3)])
    assert (np.mean(chances, 0) < 0.55).all(), 'one attribute alone leaves a choice'


def test_events_lie_in_the_video_hardly_overlap_and_come_at_any_time(scenes):
    middle = {}
    for scene in scenes:
        spans = torch.tensor([[e.start, e.end] for e in scene.events])
        assert spans.min() >= 0
        assert spans.max() <= scene.duration
        assert temporal_iou(spans[:, None], spans).fill_diagonal_(0).max() <= 0.2 + 1e-6
        for event in scene.events:
            middle.setdefault(event.action, []).append((event.start + event.end) / 2)
    assert any(a.end > b.start for s in scenes for a, b in pairwise(s.events))
    assert all(9 < np.mean(times) < 15 for times in middle.values())


DIRECTIONS = dict(left=(-1, 0), right=(1, 0), up=(0, -1), down=(0, 1))  # right and down


def test_objects_do_what_their_events_say(scenes):
    for scene in scenes:
        for event, i in zip(scene.events, scene.event_objects(), strict=True):
            item = scene.objects[i]
            first, last = round(event.start * scene.fps), round(event.end * scene.fps) - 1
            during = slice(first, last + 1)
            assert item.present[during].all()
            grown = item.radius[last] / item.radius[first]
            if event.action in DIRECTIONS:
                moved = np.array([item.x[last] - item.x[first], item.y[last] - item.y[first]])
                direction = np.array(DIRECTIONS[event.action])
                assert moved @ direction > 0.2
                assert abs(moved @ direction[::-1]) < 1e-9
            else:
                assert dict(
                    grow=grown > 1.5,
                    shrink=grown < 0.67,
                    blink=0.3 < item.lit[during].mean() < 0.7,
                    loop=min(np.ptp(item.x[during]), np.ptp(item.y[during])) > 0.15,
                )[event.action]


def test_tubes_stay_in_the_frame_and_follow_the_object(scenes):
    item = scenes[0].objects[0]
    tube = item.tube(96)
    assert tube.dtype == np.int16
    assert tube[:, 0].tolist() == np.flatnonzero(item.present).tolist()
    assert (tube[:, 1:3] < tube[:, 3:]).all()
    assert 0 <= tube[:, 1:].min() < tube[:, 1:].max() <= 96
    center = (tube[:, 1] + tube[:, 3]) / 2
    assert np.abs(center - item.x[tube[:, 0]] * 96).max() <= 1


def still(shape, color, frames=3):
    """A standing object that is dark in frame 1."""
    full, lit = np.ones(frames), np.arange(frames) != 1
    item = SceneObject(color, shape, 0.4 * full, 0.6 * full, 0.15 * full, full > 0, lit)
    return Scene('v', frames / 8, 8, [item], [], [], background=(40, 40))


@pytest.mark.parametrize('shape', SHAPES)
def test_drawing_fills_the_box_of_the_tube_and_nothing_while_dark(shape):
    scene = still(shape, 'yellow')
    frames = SceneRenderer(96).render(scene)
    rows, columns = np.nonzero(frames[0, :96] > 120)
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(drawn - scene.objects[0].tube(96)[0, 1:]).max() <= 1
    assert np.ptp(frames[1, :96]) == 0


@pytest.mark.parametrize('color', COLORS)
def test_video_keeps_color_place_and_length(tmp_path, color):
    scene = still('square', color, frames=16)
    write_video(tmp_path / 'v.mp4', SceneRenderer(96).render(scene), fps=8)
    with av.open(str(tmp_path / 'v.mp4')) as file:
        pictures = [frame.to_ndarray(format='rgb24') for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == 8
    assert len(pictures) == 16
    assert np.abs(pictures[0][57, 38].astype(int) - COLORS[color]).max() < 25
    assert list(tmp_path.iterdir()) == [tmp_path / 'v.mp4']


def test_an_object_in_front_hides_the_one_behind():
    scene, front = still('square', 'red'), still('square', 'blue')
    scene.objects += front.objects
    both, blue = (SceneRenderer(64).render(s)[0, 34:44, 20:30] for s in (scene, front))
    np.testing.assert_array_equal(both, blue)
