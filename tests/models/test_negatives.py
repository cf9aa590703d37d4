"""The memory bank, what a batch is compared with, and when two texts are the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.on_device import on_device
from helpers.random_candidates import random_candidates
from helpers.stub_tower import StubTower
from helpers.tiny_models import batch_of, build_tiny, sample_of

from mmn_plugin.errors import InputError
from mmn_plugin.models import MemoryBank, NegativeSource
from mmn_plugin.structures import normalized_text

CPU = torch.device('cpu')


def held(bank):
    """Everything a bank holds, as {video's first value: [its sentences' first values]}."""
    candidates = bank.candidates(CPU)
    result = {float(moments[0, 0]): [] for moments in candidates.moments}
    keys = list(result)
    for sentence, video in zip(candidates.sentences, candidates.sentence_video, strict=True):
        result[keys[video]].append(float(sentence[0]))
    return result


def pushed(*batches):
    """The same of batches."""
    result = {}
    for batch in batches:
        for v, moments in enumerate(batch.moments):
            result[float(moments[0, 0])] = batch.sentences[batch.sentence_video == v, 0].tolist()
    return result


def batches(number=6):
    return [
        random_candidates(
            [1 + (i + j) % 3 for j in range(1 + i % 3)],
            [f'video_{i}_{j}' for j in range(1 + i % 3)],
            [f'text {i}' for j in range(1 + i % 3) for _ in range(1 + (i + j) % 3)],
        )
        for i in range(number)
    ]


def test_the_bank_holds_the_last_videos_with_their_own_sentences():
    bank, everything = MemoryBank(4), batches()
    rows = [pair for b in everything for pair in zip(b.sentences, b.meaning, strict=True)]
    meanings = {float(row[0]): vector.tolist() for row, vector in rows}
    for number, batch in enumerate(everything, 1):
        bank.push(batch)
        last = list(pushed(*everything[:number]).items())[-4:]
        assert held(bank) == dict(last)
        candidates = bank.candidates(CPU)
        for row, vector in zip(candidates.sentences, candidates.meaning, strict=True):
            assert meanings[float(row[0])] == vector.tolist()
        assert len(candidates.texts) == len(candidates.iou) == len(candidates.sentences)
        for text, video in zip(candidates.texts, candidates.sentence_video, strict=True):
            assert candidates.video_ids[video].startswith('video_' + text.split()[1])


def test_a_batch_larger_than_the_bank_leaves_its_last_videos():
    bank, batch = MemoryBank(2), random_candidates([1, 2, 3], 'abc')
    bank.push(batch)
    assert held(bank) == dict(list(pushed(batch).items())[1:])


@pytest.mark.parametrize('size', [4, 2, 9])
def test_a_stored_bank_comes_back_and_another_size_keeps_the_newest(size, tmp_path):
    stored, everything = MemoryBank(4), batches()
    for batch in everything[:4]:
        stored.push(batch)
    torch.save(stored.state(), tmp_path / 'bank.pth')
    bank = MemoryBank(size)
    bank.push(everything[5])
    bank.load_state(MemoryBank(size).state())
    assert bank.candidates(CPU) is None
    bank.load_state(torch.load(tmp_path / 'bank.pth', weights_only=True))
    last = list(pushed(*everything[:4]).items())[-4:]
    assert held(bank) == dict(last[-size:])
    from_device = MemoryBank(size)
    from_device.load_state(on_device(stored.state()))
    assert held(from_device) == held(bank)
    if size == 4:  # bit for bit, the order of sums included, now and later
        for batch in everything[4:]:
            for one, other in zip(stored.state().values(), bank.state().values(), strict=True):
                assert torch.equal(one, other) if torch.is_tensor(one) else one == other
            stored.push(batch)
            bank.push(batch)


def test_embeddings_that_are_no_numbers_do_not_poison_the_bank():
    bank, batch = MemoryBank(2), random_candidates([2, 1], 'ab')
    batch.moments[0, 0, 0], batch.sentences[1, 0] = torch.nan, torch.inf
    bank.push(batch)
    assert bank.candidates(CPU).moments.isfinite().all()
    assert bank.candidates(CPU).sentences.isfinite().all()


def test_a_batch_enters_the_bank_when_the_next_one_comes_and_only_in_training():
    source, everything = NegativeSource(queue_size=8), batches()
    assert len(source.collect(everything[0]).pools) == 1
    assert len(source.collect(everything[1], training=False).pools) == 2
    pools = source.collect(everything[2]).pools
    assert pools[1].candidates.video_ids == everything[0].video_ids
    assert not pools[1].candidates.moments.requires_grad
    source.settle()
    assert len(source.bank) == len(everything[0].video_ids) + len(everything[2].video_ids)


def test_backward_may_use_the_bank_until_the_next_batch():
    source, (first, second, third) = NegativeSource(queue_size=2), batches(3)
    source.collect(first)
    # in the bank's first slot: the only video of the first batch, then the second batch's last
    for batch, expected in ((second, first.moments[0, 0]), (third, second.moments[1, 0])):
        batch.sentences.requires_grad_()
        pools = source.collect(batch).pools
        (batch.sentences @ pools[1].candidates.moments[0, 0]).sum().backward()
        assert torch.equal(batch.sentences.grad, expected.expand_as(batch.sentences))


def test_a_video_of_the_queue_weighs_half_as_much_for_each_half_life_of_younger_ones():
    source, everything = NegativeSource(queue_size=4, weight=3.0, half_life=2.0), batches()
    stored = []
    for batch in everything[:5]:
        pools = source.collect(batch).pools
        if stored:
            pool = pools[1]
            ages = {video: age for age, video in enumerate(reversed(stored))}
            expected = [3 * 0.5 ** (ages[name] / 2) for name in pool.candidates.video_ids]
            torch.testing.assert_close(pool.log_weight.exp(), pool.log_weight.new_tensor(expected))
        stored = (stored + batch.video_ids)[-4:]
    assert len(stored) == 4  # the ring has come round


@pytest.mark.parametrize('settings', [dict(half_life=8), dict(queue_size=4, half_life=0)])
def test_a_half_life_needs_a_queue_that_ages(settings):
    with pytest.raises(InputError, match=r'negatives\.half_life=[08], queue_size='):
        NegativeSource(**settings)


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
    plain = NegativeSource().collect(own).pools[0]
    assert np.array(plain.same_meaning).size == 0
    strict = NegativeSource(exclude_same_text=True).collect(own).pools[0]
    assert np.array(strict.same_meaning).tolist() == [[0, 1], [1, 0]]


def test_sentences_of_other_videos_of_similar_meaning_are_no_negatives_in_the_bank_either():
    source = NegativeSource(queue_size=4, exclude_similar=0.8)
    first, own = random_candidates([1, 1], 'ab'), random_candidates([2, 1], 'bc')
    first.meaning[:] = [[0.6, 0.8], [0, 1]]
    own.meaning[:] = [[0, 1], [1, 0], [0.28, 0.96]]
    source.collect(first)
    batch, bank = source.collect(own).pools
    assert np.transpose(batch.same_meaning).tolist() == [[0, 2], [2, 0]]
    assert np.transpose(bank.same_meaning).tolist() == [[0, 0], [2, 0], [2, 1]]


@pytest.mark.parametrize(('before', 'now'), [(None, 0.8), (0.8, None)])
def test_a_bank_begins_anew_where_meanings_are_compared_from_now_on_or_no_longer(before, now):
    stored, source = (NegativeSource(queue_size=4, exclude_similar=x) for x in (before, now))
    batch = random_candidates([1, 1], 'ab')
    stored.collect(batch if before else replace(batch, meaning=None))
    source.load_common_state(stored.common_state())
    assert (len(stored.bank), len(source.bank)) == (2, 0)


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


def test_what_exclude_similar_needs_is_said():
    for similar in (0.0, 1.0, -1):
        with pytest.raises(ValueError, match=f'exclude_similar={similar}: give a cosine between'):
            NegativeSource(exclude_similar=similar)
    for config in ('mmn_charades.py', 'mscl_charades.py'):
        with pytest.raises(ValueError, match=r'exclude_similar=0.8 compares .*set model\.tower'):
            build_tiny(config, head=dict(negatives=dict(exclude_similar=0.8)))
    own = replace(random_candidates([1], 'a'), meaning=None)
    with pytest.raises(ValueError, match=r"hand sentences\['meaning'\] to its `candidates`"):
        NegativeSource(exclude_similar=0.8).collect(own)
