import numpy as np
import pytest

from mmn_plugin.shapes import (
    ACTIONS,
    BLANK_SENTENCE,
    COLORS,
    SHAPES,
    Event,
    SentenceGrammar,
    build_vocabulary,
    mask_annotations,
    mask_sentence,
)
from mmn_plugin.shapes import sentences as lexicon


def _sentences(event, count=300):
    rng = np.random.default_rng(0)
    return {SentenceGrammar().sentence(rng, event) for _ in range(count)}


@pytest.mark.parametrize('action', ACTIONS)
def test_an_event_is_said_in_many_ways_and_orders(action):
    sentences = _sentences(Event('red', 'circle', action, 0, 1))
    assert len(sentences) > 100
    color_first = sum(
        min(s.find(w) for w in lexicon.COLOR_WORDS['red'] if w in s)
        < min(s.find(w) for w in lexicon.SHAPE_WORDS['circle'] if w in s)
        for s in sentences
    )
    assert 0.2 < color_first / len(sentences) < 0.8


def test_every_sentence_names_all_three_attributes():
    for color in COLORS:
        for shape in SHAPES:
            for action in ACTIONS:
                for sentence in _sentences(Event(color, shape, action, 0, 1), 3):
                    for keep in ('color', 'shape', 'action'):
                        assert mask_sentence(sentence, keep) != BLANK_SENTENCE


def test_different_events_never_share_a_sentence():
    first = _sentences(Event('red', 'circle', 'left', 0, 1))
    for other in (('blue', 'circle', 'left'), ('red', 'square', 'left'), ('red', 'circle', 'up')):
        assert first.isdisjoint(_sentences(Event(*other, 0, 1)))


def test_no_word_tells_two_attributes():
    words = [
        *(w for group in lexicon.COLOR_WORDS.values() for w in group),
        *(w for group in lexicon.SHAPE_WORDS.values() for w in group),
    ]
    assert len(set(words)) == len(words)
    actions = {word for word, name in lexicon.word_classes().items() if name == 'action'}
    assert actions.isdisjoint(words)
    frames = ' '.join((*lexicon.NOUN_PHRASES, *lexicon.SENTENCES)).split()
    assert lexicon.word_classes().keys().isdisjoint(frames)


@pytest.mark.parametrize(
    ('keep', 'left'),
    [
        ('color', 'crimson'),
        ('shape', 'ball'),
        ('action', 'slides left side'),
        (('color', 'shape'), 'ball crimson'),
        ((), BLANK_SENTENCE),
    ],
)
def test_masking_keeps_only_the_asked_words(keep, left):
    sentence = 'now the ball in crimson slides towards the left side'
    assert mask_sentence(sentence, keep) == left
    masked = mask_annotations(
        {'v': dict(duration=1.0, timestamps=[[0, 1]], sentences=[sentence])}, keep
    )
    assert masked == {'v': dict(duration=1.0, timestamps=[[0, 1]], sentences=[left])}


def test_masking_refuses_an_unknown_class():
    with pytest.raises(ValueError, match='size'):
        mask_sentence('the red ball grows', keep='size')


def test_articles_fit_the_next_word():
    for sentence in _sentences(Event('cyan', 'circle', 'grow', 0, 1)):
        assert ' a aqua' not in f' {sentence}'
        assert ' an c' not in f' {sentence}'


def test_vocabulary_has_special_tokens_words_and_characters_in_order():
    vocabulary = build_vocabulary(['The ball grows', 'the box , up'])
    assert vocabulary[:6] == ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'the']
    assert vocabulary[6:11] == [',', 'ball', 'box', 'grows', 'up']
    assert {'a', '##a', '9', '##9'} <= set(vocabulary)
    assert len(set(vocabulary)) == len(vocabulary)


def test_an_unknown_word_is_spelled_and_not_lost(tmp_path):
    from mmn_plugin.models.text_encoders import SentenceTokenizer

    file = tmp_path / 'vocab.txt'
    file.write_text('\n'.join(build_vocabulary(['the ball grows'])) + '\n')
    tokenizer = SentenceTokenizer(vocab=str(file))
    known, spelled = tokenizer.encode(['the ball grows', 'the cat'])
    assert len(known) == 5
    assert len(spelled) == 2 + 1 + 3
    assert tokenizer.unk_id not in spelled
