"""Sentences of Shapes say one event each, in many ways."""

from itertools import product

import numpy as np
import pytest

from mmn_plugin.models.text_encoders import SentenceTokenizer
from mmn_plugin.shapes import (
    ACTIONS,
    BLANK_SENTENCE,
    COLORS,
    OPPOSITES,
    SHAPES,
    Event,
    build_vocabulary,
    mask_sentence,
    say,
    say_opposites,
)
from mmn_plugin.shapes import sentences as lexicon


def sentences(*event, count=300):
    rng = np.random.default_rng(0)
    return {say(rng, Event(*event, 0, 1)) for _ in range(count)}


@pytest.mark.parametrize('action', ACTIONS)
def test_an_event_is_said_in_many_ways_and_orders(action):
    found = sentences('red', 'circle', action)
    assert len(found) > 100
    color_first = [
        min(s.find(w) for w in lexicon.COLOR_WORDS['red'] if w in s)
        < min(s.find(w) for w in lexicon.SHAPE_WORDS['circle'] if w in s)
        for s in found
    ]
    assert 0.2 < np.mean(color_first) < 0.8


def test_every_sentence_names_all_three_attributes_and_fits_one_event():
    for event in product(COLORS, SHAPES, ACTIONS):
        for sentence in sentences(*event, count=3):
            for keep in lexicon.WORD_CLASSES:
                assert mask_sentence(sentence, [keep]) != BLANK_SENTENCE
    first = sentences('red', 'circle', 'left')
    for other in (('blue', 'circle', 'left'), ('red', 'square', 'left'), ('red', 'circle', 'up')):
        assert first.isdisjoint(sentences(*other))
    for sentence in sentences('cyan', 'circle', 'grow'):
        assert ' a aqua' not in f' {sentence}'
        assert ' an c' not in f' {sentence}'


def test_no_word_tells_two_attributes():
    words = [
        w for kind in (lexicon.COLOR_WORDS, lexicon.SHAPE_WORDS) for g in kind.values() for w in g
    ]
    assert len(set(words)) == len(words)
    actions = {word for word, name in lexicon.word_classes().items() if name == 'action'}
    assert actions.isdisjoint(words)
    frames = ' '.join((*lexicon.NOUN_PHRASES, *lexicon.SENTENCES)).split()
    assert lexicon.word_classes().keys().isdisjoint(frames)


@pytest.mark.parametrize(
    ('keep', 'left'),
    [
        (['color'], 'crimson'),
        (['shape'], 'ball'),
        (['action'], 'slides left side'),
        (['color', 'shape'], 'ball crimson'),
        ([], BLANK_SENTENCE),
    ],
)
def test_masking_keeps_only_the_asked_words(keep, left):
    sentence = 'now the ball in crimson slides towards the left side'
    assert mask_sentence(sentence, keep) == left


def test_the_vocabulary_spells_unknown_words(tmp_path):
    vocabulary = build_vocabulary(['The ball grows', 'the box , up'])
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    assert vocabulary[:11] == [*special, 'the', ',', 'ball', 'box', 'grows', 'up']
    assert {'a', '##a', '9', '##9'} <= set(vocabulary)
    assert len(set(vocabulary)) == len(vocabulary)
    (tmp_path / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n')
    tokenizer = SentenceTokenizer(vocab=str(tmp_path / 'vocab.txt'))
    known, spelled = tokenizer.encode(['the ball grows', 'the cat'])
    assert (len(known), len(spelled)) == (5, 2 + 1 + 3)
    assert tokenizer.unk_id not in spelled


def test_opposite_sentences_differ_in_the_motion_alone():
    said = {action: set() for action in OPPOSITES}
    for seed, action in product(range(50), OPPOSITES):
        right, wrong = say_opposites(seed, Event('red', 'circle', action, 0, 1))
        looks = [mask_sentence(text, ['color', 'shape']) for text in (right, wrong)]
        assert looks[0] == looks[1]
        said[action].add(right)
        said[OPPOSITES[action]].add(wrong)
    for action, opposite in OPPOSITES.items():
        assert len(said[action]) > 20
        assert not said[action] & said[opposite]
        phrases = lexicon.DIRECTION_PHRASES.get(action) or sum(lexicon.OTHER_PHRASES[action], ())
        assert all(any(phrase in text for phrase in phrases) for text in said[action])
