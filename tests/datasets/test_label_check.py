"""Which labels a person is asked to look at."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.tiny_towers import write_text_tower

import mmn_plugin
from mmn_plugin.datasets.label_check import (
    SAME_MEANING,
    SplitLabels,
    disagreements,
    local_tower,
    look_at_labels,
    past_end,
    windows_iou,
)
from mmn_plugin.datasets.label_text import tells_repetition, told_apart
from mmn_plugin.structures.annotations import VideoAnnotation, parse_video

REPEATED = """
person opens the refrigerator again.
A man spins the lady over and over.
The person closing the door ONCE again
The person once more washes her hands.
He touches the tool to the item one more time.
She dropped it a third time.
person opens the door twice.
sneezing many times.
the man bounces on the board two times then dives
person closes the door a few more times.
A child is shown 3 times on the screen.
the person laughs each time they sneeze.
He hits the discs with the arrow every time.
a person is repeatedly sneezing.
He repeats the process several times.
person keeps sneezing.
A woman is holding a baby who keeps on pointing at different directions.
A man plays while staring occasionally into the camera.
The man looks up into the camera every now and then.
The girl stops at times.
"""
SINGLE = """
person opens the refrigerator.
The man walks to the camera and back again.
He was never again seen in the video.
The bag is twice as large.
The crowd cheers because of how many times he had won.
She keeps the ball in the air.
The man keeps something on his head.
He keeps up with the others.
A board three times the size of the door
A man is standing against a wall.
The clock shows the time.
Several people are lined up.
The man continues speaking to the camera.
The second man throws a javelin.
She says it one time.
"""


def lines(text):
    return text.strip().splitlines()


@pytest.mark.parametrize('sentence', lines(REPEATED))
def test_a_sentence_of_several_moments_is_known_by_its_words(sentence):
    assert tells_repetition(sentence)


@pytest.mark.parametrize('sentence', lines(SINGLE))
def test_a_sentence_of_one_moment_is_not_taken_for_several(sentence):
    assert not tells_repetition(sentence)


@pytest.mark.parametrize(
    ('one', 'other', 'apart'),
    [
        ('person opens the door.', 'person closes the door.', True),
        ('person turns on the light', 'person turns the light off', True),
        ('She peeled first plum', 'She peeled 2nd plum', True),
        ('A graphic shows the number 8', 'A graphic shows the number 3', True),
        ('The shiner buffs the left shoe', 'The shiner buffs the right shoe', True),
        ('A man throws a ball', 'Another man throws a ball', True),
        ('She washed beans', 'She washed the beans.', False),
        ('person puts it onto the plate', 'person put it on the plate', False),
        ('a person opened the box', 'the person is opening the box', False),
        ('He throws the first ball', 'He throws the 1st ball', False),
        ('The baby reaches for the food', 'The baby reaches for the food again', False),
    ],
)
def test_opposites_numbers_and_places_tell_sentences_apart(one, other, apart):
    assert told_apart(one, other) == told_apart(other, one) == apart


def video(sentences, windows, duration=20.0, video_id='v'):
    index = [10 * place for place in range(len(sentences))]
    return VideoAnnotation(video_id, duration, windows, sentences, index)


@pytest.mark.parametrize(
    ('one', 'other', 'iou'),
    [
        ([(0, 4)], [(2, 6)], 1 / 3),
        ([(0, 2), (1, 4)], [(0, 4)], 1.0),  # a union
        ([(0, 2), (6, 8)], [(6, 8)], 0.5),
        ([], [(0, 4)], 0.0),
        ([], [], 1.0),
    ],
)
def test_windows_are_compared_as_unions(one, other, iou):
    assert windows_iou(one, other) == windows_iou(other, one) == pytest.approx(iou)


def test_equal_texts_at_other_times_disagree_and_each_names_the_one_farthest_from_it():
    found = disagreements(
        video(
            ['He washed pot', 'he washed POT.', 'he took out pot', 'He washed  pot', '...', '!'],
            [[(1, 5)], [(12, 16)], [(1, 5)], [(2, 5)], [(1, 2)], [(8, 9)]],
        )
    )
    assert [group.video.sentence_index for group in found] == [[0, 30, 10]]  # by time
    (group,) = found
    assert group.unlike == [2, 2, 0]
    text = "video 'v', sentence 30 ('He washed  pot'), 2.0 to 5.0 s; but sentence 10 ('he washed"
    assert group.examples()[1].startswith(text)
    assert group.offenders()[2] == dict(
        video_id='v', sentence_index=10, sentence='he washed POT.', windows=[(12, 16)]
    )


def test_equal_texts_at_about_one_time_and_one_entry_of_several_windows_agree():
    windows = [[(1, 5)], [(2, 5)], [(0, 2), (9, 12)]]
    assert not disagreements(video(['he sits', 'He sits.', 'he runs'], windows))
    assert not disagreements(video(['he sits', 'he sits'], [[], []]))


def test_a_sentence_that_occurs_and_does_not_occur_disagrees():
    (group,) = disagreements(video(['he sits', 'he sits'], [[], [(1, 4)]]))
    assert group.examples()[0].endswith("does not occur; but sentence 10 ('he sits'), 1.0 to 4.0 s")


class AngleTower:
    """Vectors at angles that are given for sentences, in degrees; other sentences are unusable."""

    def __init__(self, **angles):
        self.angles, self.asked = angles, []

    def inspect(self, sentences):
        return [(1, None if text in self.angles else 'holds no word') for text in sentences]

    def encode_sentences(self, sentences):
        self.asked += sentences
        angles = torch.tensor([self.angles[text] for text in sentences]).deg2rad()
        return torch.stack([torch.cos(angles), torch.sin(angles)], dim=-1)


def test_vectors_decide_too_unless_a_word_tells_sentences_apart():
    limit = float(np.degrees(np.arccos(SAME_MEANING)))
    angles = {'sits': 0.0, 'rests': limit - 0.1, 'sits left': 0.0, 'stands': 2 * limit + 0.1}
    sentences = [*angles, '?!', 'what']
    windows = [[(0, 2)], [(5, 9)], [(5, 9)], [(0, 2)], [(5, 9)], [(5, 9)]]
    tower = AngleTower(**angles, alone=0.0)
    videos = [video(sentences, windows), video(['alone'], [[(0, 2)]])]
    (group,) = look_at_labels(videos, tower).groups['same_meaning']
    assert group.video.sentences == ['sits', 'rests']
    assert sorted(tower.asked) == sorted(angles)  # neither the unusable nor one alone in its video
    assert not look_at_labels(videos).groups['same_meaning']


def test_kinds_are_counted_and_become_subsets():
    first = video(
        ['she waves again', 'she waves again and again', 'all of it', 'most of it', 'fine'],
        [[(1, 2)], [(1, 2), (8, 9)], [(0, 20)], [(0, 10), (9, 18)], [(3, 4)]],
    )
    second = video(['the film', 'absent'], [[(0, 17.9)], []], video_id='w')
    labels = look_at_labels([first, second])
    figures = labels.figures()
    assert {kind: found['count'] for kind, found in figures.items()} == dict(
        same_meaning=0, several_moments=1, whole_video=2, past_end=0
    )
    assert figures['whole_video']['share'] == pytest.approx(2 / 7)
    assert labels.subsets() == dict(
        several_moments={'v': [0]},
        whole_video={'v': [20, 30]},
        no_finding={'v': [10, 40], 'w': [0, 10]},
    )
    assert SplitLabels([first], {}).subsets() == dict(no_finding={'v': [0, 10, 20, 30, 40]})


def test_windows_past_the_end_are_told_as_annotated_and_rounding_is_none():
    entry = dict(
        fps=10.0,
        num_frames=200,
        timestamps=[[0, 200.000001], [150, 210], [9, 5], [[0, 30], [180, 205]]],
        sentences=['one', 'two', 'dropped', 'three'],
    )
    flaws = []
    parsed = parse_video('a.json', 'v', entry, flaws=flaws)
    assert [kind.split(':')[0] for _, kind, _ in flaws] == [
        'end after the video',
        'start >= end',
        'end after the video',
    ]
    assert parsed.windows[0] == [(0.0, 20.0)]
    group = past_end(parsed, entry)
    assert group.video.sentence_index == [1, 3]
    assert group.video.windows == [[(15.0, 21.0)], [(0.0, 3.0), (18.0, 20.5)]]
    other = replace(parsed, sentence_index=[7, 8, 30])  # of a whole file
    assert past_end(other, entry).video.sentence_index == [8, 30]
    assert past_end(parsed, dict(entry, timestamps=[[0, 10]] * 3)) is None
    assert past_end(parsed, dict(num_frames=200)) is None


def test_what_compares_sentences_is_told(tmp_path, monkeypatch):
    mmn_plugin.register_components()
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'cache'))
    folder = write_text_tower(tmp_path / 'tower')
    tower, told = local_tower(dict(tower=dict(type='TextTower', model=folder)))
    assert told == f'their texts, and vectors of {folder}'
    assert tower.encode_sentences(['a man opens the door']).shape == (1, 16)
    frozen = dict(text_encoder=dict(name_or_path=folder, frozen=True))
    tower, told = local_tower(frozen)
    assert tower.pooling == 'mean'
    assert local_tower(frozen, quick=True) == (None, 'their texts alone (quick)')
    for model, why in (
        (dict(text_encoder=dict(name_or_path=folder)), 'the config has no tower and no frozen'),
        (dict(tower=dict(type='TextTower', model='org/none')), 'the weights of org/none are not'),
        (dict(tower=dict(type='NoTower')), 'the tower cannot be used: .*NoTower'),
    ):
        tower, told = local_tower(model)
        assert tower is None
        assert why.split(':')[0] in told
