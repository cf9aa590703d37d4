"""What a batch is compared with, and when two sentences say the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.random_candidates import joined_candidates, random_candidates
from helpers.stub_tower import StubTower
from helpers.tiny_models import batch_of, build_tiny, sample_of

from mmn_plugin.errors import InputError
from mmn_plugin.models import Negatives, NegativeSource
from mmn_plugin.structures import normalized_text


def test_texts_that_differ_in_case_punctuation_and_white_space_are_the_same():
    for one, other in (
        ('A person opens the door.', 'a person  opens the door'),
        ("The man's hat!", 'the man s hat'),
        ('STRASSE', 'straße'),
        ('caf\u00e9', 'cafe\u0301'),
        (' first, then second ', 'First; then\tsecond?'),
    ):
        assert normalized_text(one) == normalized_text(other)
    assert normalized_text('box 1') != normalized_text('box 2')


def test_only_with_the_option_does_text_matter():
    own = random_candidates([1, 1], 'ab', ['same', 'same'])
    plain = NegativeSource().collect(own)
    assert np.array(plain.same_meaning).size == 0
    strict = NegativeSource(exclude_same_text=True).collect(own)
    assert np.array(strict.same_meaning).tolist() == [[0, 1], [1, 0]]


def test_sentences_of_other_videos_of_similar_meaning_are_no_negatives():
    other, own = random_candidates([1, 1], 'ab'), random_candidates([2, 1], 'bc')
    other.meaning[:] = [[0.6, 0.8], [0, 1]]
    own.meaning[:] = [[0, 1], [1, 0], [0.28, 0.96]]
    alone = NegativeSource(exclude_similar=0.8).collect(own)
    assert np.transpose(alone.same_meaning).tolist() == [[0, 2], [2, 0]]
    everyone = joined_candidates(own, other)
    found = Negatives.of(everyone, own, (0, 0), exclude_similar=0.8).same_meaning
    assert np.transpose(found).tolist() == [[0, 2], [0, 3], [2, 0], [2, 3], [2, 4]]


def test_meanings_are_the_towers_or_a_frozen_language_models_and_embedded_once():
    batch = batch_of(model := build_tiny(text_encoder=dict(frozen=True)))
    texts = [text for sample in batch['data_samples'] for text in sample.sentences]
    means = F.normalize(model.text_encoder.token_means(batch['sentences']), dim=-1)
    torch.testing.assert_close(model.meanings(texts, batch['sentences']), means)
    torch.testing.assert_close(model.meanings(texts, None), means)  # they are kept
    model = build_tiny(tower=dict(type='StubTower'))
    for _ in range(2):
        vectors = model.meanings(['the box', texts[0], 'the box'], None)
        expected = StubTower().encode_sentences(['the box', texts[0], 'the box'])
        torch.testing.assert_close(vectors, expected)
    assert model.tower.asked == ['the box', texts[0]]


@pytest.mark.parametrize('config', ['mmn_charades.py', 'mscl_charades.py'])
def test_a_model_leaves_similar_sentences_out_as_it_does_those_of_the_same_text(config):
    similar = sample_of('v', ['the red box']), sample_of('vv', ['the box'])
    losses = []
    for setting, second in ((dict(exclude_similar=0.7), 1), (dict(exclude_same_text=True), 0)):
        model = build_tiny(config, head=dict(negatives=setting), text_encoder=dict(frozen=True))
        model.tower, batch = StubTower(), batch_of(model, similar)
        if not second:  # embeddings as they are, but one text for both
            for sample in batch['data_samples']:
                sample.set_metainfo(dict(sentences=['the box']))
        losses.append(model(**batch, mode='loss'))
    plain = build_tiny(config, head=dict(negatives=None))(**batch, mode='loss')
    assert losses[0] == losses[1] != plain


@pytest.mark.parametrize('config', ['mmn_charades.py', 'mscl_charades.py'])
def test_a_setting_that_does_not_exist_is_named_with_those_that_do(config):
    with pytest.raises(InputError, match=r'negatives\.queue_size: .*; there are scope,'):
        build_tiny(config, head=dict(negatives=dict(queue_size=8)))
    with pytest.raises(InputError, match=r"negatives\.exclude_similar='0.8': it must be a number"):
        build_tiny(config, head=dict(negatives=dict(exclude_similar='0.8')))


def test_what_exclude_similar_needs_is_said():
    for similar in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match=f'exclude_similar={similar}: give a cosine between'):
            NegativeSource(exclude_similar=similar)
    remedies = {'mmn': r'model\.tower \(.*\), or model', 'mscl': 'model'}  # which has no tower
    for method, remedy in remedies.items():
        said = rf'exclude_similar=0.8 compares .* trained: set {remedy}\.text_encoder\.frozen=True'
        with pytest.raises(ValueError, match=said):
            build_tiny(f'{method}_charades.py', head=dict(negatives=dict(exclude_similar=0.8)))
    model = build_tiny()  # of a localizer that has not asked
    model.head.negatives = NegativeSource(exclude_similar=0.8)
    with pytest.raises(ValueError, match=r'exclude_similar=0\.8 compares'):
        model(**batch_of(model), mode='loss')
    own = replace(random_candidates([1], 'a'), meaning=None)
    with pytest.raises(ValueError, match=r"hand sentences\['meaning'\] to its `candidates`"):
        NegativeSource(exclude_similar=0.8).collect(own)
