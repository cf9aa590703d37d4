"""All that happens in a library of Shapes' videos."""

import json

import pytest

from mmn_plugin.errors import InputError
from mmn_plugin.shapes import SceneSampler, WholeTruth, mask_sentence
from mmn_plugin.structures.annotations import VideoAnnotation

TRAIN = 40


@pytest.fixture
def corpus(tmp_path):
    """Folder with a manifest, as of a corpus whose first 40 videos are of training."""
    manifest = dict(seed=3, scene_seeds=dict(train=[0, TRAIN - 1]))
    (tmp_path / 'manifest.json').write_text(json.dumps(manifest))
    return tmp_path


def scenes_of(numbers):
    sampler = SceneSampler(3)
    return [sampler.sample(n, f'shapes_{n:05d}', training=n < TRAIN) for n in numbers]


def test_a_sentence_is_true_of_every_event_of_its_color_shape_and_action(corpus):
    scenes = scenes_of(range(30, 90))
    ids = [scene.video_id for scene in scenes]
    videos = [
        VideoAnnotation(
            scene.video_id,
            scene.duration,
            [(event.start, event.end) for event in scene.events][1:],
            scene.sentences[1:],
            list(range(1, len(scene.events))),  # as if the first had been dropped
        )
        for scene in scenes[-5:]
    ]
    asked = WholeTruth(corpus).asked(videos, ids)
    events = [event for scene in scenes[-5:] for event in scene.events[1:]]
    places = [55 + n for n, scene in enumerate(scenes[-5:]) for _ in scene.events[1:]]
    assert len(asked) == len(events)
    several = 0
    for one, event, own in zip(asked, events, places, strict=True):
        found = set(zip(one.videos.tolist(), map(tuple, one.moments.tolist()), strict=True))
        right = {
            (place, (other.start, other.end))
            for place, scene in enumerate(scenes)
            for other in scene.events
            if (other.color, other.shape, other.action) == (event.color, event.shape, event.action)
        }
        assert found == right
        assert len(one.videos) == len(right)
        assert (int(one.videos[0]), *one.moments[0].tolist()) == (own, event.start, event.end)
        several += len(right) > 1
    assert several


def test_sentences_are_drawn_about_what_occurs_and_about_what_never_does(corpus):
    scenes = scenes_of(range(20))
    truth = WholeTruth(corpus)
    present, absent = truth.drawn_sentences([scene.video_id for scene in scenes], number=3)
    happening = {event.combination for scene in scenes for event in scene.events}
    assert len(present) == 3 * len(happening)
    assert len(absent) == 3 * (240 - len(happening))
    assert 'red' in ' '.join(mask_sentence(text, ['color']) for text in absent)
    assert truth.drawn_sentences([scene.video_id for scene in scenes], number=3)[1] == absent


def test_another_folder_is_no_corpus(tmp_path):
    with pytest.raises((InputError, FileNotFoundError), match='no corpus of Shapes'):
        WholeTruth(tmp_path)
