"""Scenes with events that happen twice, and sentences about what does not happen."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from mmn_plugin.shapes import (
    ABSENCES,
    COLORS,
    SHAPES,
    CorpusError,
    ShapesCorpus,
    ShapesTubes,
    WholeTruth,
    WindowsSampler,
    held_out_combinations,
    mask_sentence,
    read_events,
)
from mmn_plugin.shapes.sentences import COLOR_WORDS, SHAPE_WORDS
from mmn_plugin.structures import temporal_iou
from mmn_plugin.structures.annotations import read_annotations

SEED, TRAIN = 3, 100


@pytest.fixture(scope='module')
def scenes():
    sampler = WindowsSampler(SEED)
    return [sampler.sample(i, f'shapes_{i:05d}', i < TRAIN) for i in range(160)]


def runs(happening, gap=1):
    """First and last place of each run of True; runs less than ``gap`` places apart are one."""
    places = np.flatnonzero(happening)
    parts = np.split(places, np.flatnonzero(np.diff(places) > gap) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts if len(part)]


def action_of(item, first, last):
    """What an object's way between two frames looks like."""
    if not item.lit[first : last + 1].all():
        return 'blink'
    grown = item.radius[last] / item.radius[first]
    if abs(grown - 1) > 1e-6:
        return 'grow' if grown > 1 else 'shrink'
    x, y = (value[first : last + 1] for value in (item.x, item.y))
    if min(np.ptp(x), np.ptp(y)) > 1e-6:
        return 'loop'
    if np.ptp(x):
        return 'right' if x[-1] > x[0] else 'left'
    return 'down' if y[-1] > y[0] else 'up'


def seen_in_motion(scene):
    """(color, shape, action) -> (start, end) in frames of all that moves, grows or is dark."""
    found = {}
    for item in scene.objects:
        step = sum(abs(np.diff(value)) for value in (item.x, item.y, item.radius)) > 1e-9
        # a blinking object is lit for at most 0.55 s at a time, and dark at first
        spans = [(first, last + 1) for first, last in runs(step)] + runs(~item.lit, gap=6)
        for first, last in spans:
            assert item.present[first : last + 1].all(), 'nothing happens unseen'
            key = (item.color, item.shape, action_of(item, first, last))
            found.setdefault(key, []).append((first, last))
    return {key: sorted(spans) for key, spans in found.items()}


def as_windows(timestamps):
    return [timestamps] if timestamps and not isinstance(timestamps[0], list) else timestamps


def test_what_is_annotated_is_all_that_the_objects_do(scenes):
    several = Counter()
    for scene in scenes:
        seen, entry = seen_in_motion(scene), scene.annotation()
        for combination, timestamps in zip(scene.asked, entry['timestamps'], strict=True):
            spans = seen.pop(combination, [])
            windows = as_windows(timestamps)
            several[len(windows)] += 1
            assert len(spans) == len(windows), (scene.video_id, combination)
            for (first, last), (start, end) in zip(spans, windows, strict=True):
                assert first == 8 * start
                assert 0 <= 8 * end - last <= (6 if combination[2] == 'blink' else 1)
        assert not seen, 'no event is left without a sentence'
    assert set(several) == {0, 1, 2}
    assert several[2] >= len(scenes)


def test_sentences_say_what_they_are_about(scenes):
    for scene in scenes:
        for (color, shape, _), sentence in zip(scene.asked, scene.sentences, strict=True):
            assert mask_sentence(sentence, ['color']) in COLOR_WORDS[color]
            assert mask_sentence(sentence, ['shape']) in SHAPE_WORDS[shape]


def test_windows_of_a_sentence_are_apart_and_no_two_of_a_look_are_seen_at_once(scenes):
    for scene in scenes:
        for timestamps in scene.annotation()['timestamps']:
            for (_, end), (start, _) in zip(
                as_windows(timestamps), as_windows(timestamps)[1:], strict=False
            ):
                assert start - end >= WindowsSampler.REST
        for look in {(item.color, item.shape) for item in scene.objects}:
            present = sum(
                item.present.astype(int)
                for item in scene.objects
                if (item.color, item.shape) == look
            )
            assert present.max() <= 1
        owners = [scene.objects[i] for i in scene.event_objects()]
        for event, item in zip(scene.events, owners, strict=True):
            assert (item.color, item.shape) == event.look
            assert item.present[round(event.start * 8) : round(event.end * 8)].all()
        spans = torch.tensor([[event.start, event.end] for event in scene.events])
        assert temporal_iou(spans[:, None], spans).fill_diagonal_(0).max() <= 0.2 + 1e-6


def test_absent_sentences_are_hard_and_some_are_never_trained(scenes):
    held_out = held_out_combinations(SEED)
    for number, scene in enumerate(scenes):
        present = {event.combination for event in scene.events}
        absent = {kind: one for one, kind in scene.about if kind in ABSENCES}
        training = number < TRAIN
        assert set(absent) == set(ABSENCES) - ({'untrained'} if training else set())
        assert len(set(absent.values())) == len(absent)
        assert present.isdisjoint(absent.values())
        assert absent['action'][:2] in {one[:2] for one in present}
        assert absent['color'][1:] in {one[1:] for one in present}
        assert {kind for kind, one in absent.items() if one in held_out} <= {'untrained'}
        if training:
            assert held_out.isdisjoint(scene.asked)
        else:
            assert absent['untrained'] in held_out


def test_same_seed_gives_same_scene(scenes):
    again = WindowsSampler(SEED).sample(7, 'shapes_00007', True)
    assert again.annotation() == scenes[7].annotation()
    assert WindowsSampler(SEED + 1).sample(7, '', True).annotation() != again.annotation()


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp('windows') / 'corpus'
    corpus = ShapesCorpus(folder, 20, SEED, 32, absent_and_repeated=True)
    corpus.write(workers=0)
    return corpus


def read(corpus, name):
    return json.loads((corpus.folder / 'annotations' / f'{name}.json').read_text())


def test_a_corpus_says_none_one_or_two_moments_and_why(corpus):
    assert corpus.complete
    truth = WholeTruth(corpus.folder)
    for split in ('train', 'val', 'test'):
        for video, entry in read(corpus, split).items():
            happening = truth.answers([video])
            for one, timestamps in zip(truth.scene(video).asked, entry['timestamps'], strict=True):
                windows = [(0, *window) for window in as_windows(timestamps)]
                assert windows == happening.get(one, [])
    test, subsets, absent = (read(corpus, n) for n in ('test', 'test_subsets', 'test_absent'))
    assert set(subsets) == {'seen', 'unseen', 'once', 'twice'}
    assert set(absent) == set(ABSENCES)
    for video, entry in test.items():
        counts = [len(as_windows(timestamps)) for timestamps in entry['timestamps']]
        places = {name: part.get(video, []) for name, part in {**subsets, **absent}.items()}
        assert places['once'] == [i for i, count in enumerate(counts) if count == 1]
        assert places['twice'] == [i for i, count in enumerate(counts) if count == 2]
        assert sorted(places['seen'] + places['unseen']) == sorted(places['once'] + places['twice'])
        rest = [i for i, count in enumerate(counts) if count == 0]
        assert sorted(i for kind in ABSENCES for i in places[kind]) == rest
    words = set((corpus.folder / 'vocab.txt').read_text().split())
    assert {word for names in COLOR_WORDS.values() for word in names} <= words
    assert not (corpus.folder / 'ablations').exists()


def test_in_a_library_a_sentence_is_true_of_its_own_windows_first(corpus):
    videos = read_annotations(corpus.folder / 'annotations/test.json')
    library = [f'shapes_{i:05d}' for i in range(20)]
    asked = WholeTruth(corpus.folder).asked(videos, library)
    own = [
        (library.index(video.video_id), windows)
        for video in videos
        for windows in video.windows
        if windows
    ]
    assert len(asked) == len(own) < sum(len(video.sentences) for video in videos)
    for one, (place, windows) in zip(asked, own, strict=True):
        answers = list(zip(one.videos.tolist(), map(tuple, one.moments.tolist()), strict=True))
        assert [tuple(window) for window in one.windows.tolist()] == windows
        assert answers[: len(windows)] == [(place, window) for window in windows]
        assert place not in [video for video, _ in answers[len(windows) :]]
    assert any(len(one.videos) > len(windows) for one, (_, windows) in zip(asked, own, strict=True))


def test_what_needs_one_moment_for_each_sentence_refuses_it(corpus):
    for use in (ShapesTubes, lambda folder: read_events(folder, 'val')):
        with pytest.raises(CorpusError, match='no moment or several ones'):
            use(corpus.folder)


@pytest.mark.parametrize('wanted', [True, False])
def test_a_corpus_of_one_kind_is_not_mixed_with_the_other(tmp_path, wanted):
    ShapesCorpus(tmp_path, 10, SEED, 32, wanted)._write_manifest(complete=False)
    with pytest.raises(CorpusError, match='absent_and_repeated='):
        ShapesCorpus(tmp_path, 10, SEED, 32, not wanted)


def test_every_look_and_action_occurs(scenes):
    asked = {one for scene in scenes for one in scene.asked}
    assert {one[0] for one in asked} == set(COLORS)
    assert {one[1] for one in asked} == set(SHAPES)
    assert len({one[2] for one in asked}) == 8
