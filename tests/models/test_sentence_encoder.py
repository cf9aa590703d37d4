"""Sentences by length, and a frozen language model."""

import itertools

import pytest
import torch

from mmn_plugin.models.text_encoders import SentenceEncoder
from mmn_plugin.models.text_encoders.sentence_encoder import length_buckets
from mmn_plugin.structures import SentenceBatch, TokenIds

CONFIG = dict(
    model_type='distilbert',
    vocab_size=50,
    dim=16,
    n_heads=2,
    n_layers=2,
    hidden_dim=32,
    max_position_embeddings=64,
)


def batch_of(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(1, 50, (length,), generator=generator).tolist() for length in lengths]
    input_ids = torch.zeros(len(ids), max(lengths), dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for row, sentence in enumerate(ids):
        input_ids[row, : len(sentence)] = torch.tensor(sentence)
        mask[row, : len(sentence)] = 1
    return SentenceBatch(input_ids, mask, torch.zeros(len(ids), dtype=torch.int64), TokenIds(ids))


@pytest.fixture
def encoder():
    torch.manual_seed(1)
    return SentenceEncoder(8, config=CONFIG)


@pytest.fixture
def calls(monkeypatch):
    """Shape of every batch that goes through the language model."""
    seen, original = [], SentenceEncoder._token_means

    def record(self, sentences):
        seen.append(tuple(sentences.input_ids.shape))
        return original(self, sentences)

    monkeypatch.setattr(SentenceEncoder, '_token_means', record)
    return seen


def cheapest(lengths, overhead):
    """Over all splits of the sorted sentences."""
    lengths, best = sorted(lengths), float('inf')
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        cost, size = overhead, 0
        for i, length in enumerate(lengths):
            size += 1
            if i + 1 == len(lengths) or cuts[i]:
                cost, size = cost + size * length + overhead * (i + 1 < len(lengths)), 0
        best = min(best, cost)
    return best


@pytest.mark.parametrize('overhead', [0, 5, 20, 1000])
def test_no_other_split_is_cheaper(overhead):
    generator = torch.Generator().manual_seed(overhead)
    for count in (1, 2, 5, 9):
        lengths = torch.randint(3, 25, (count,), generator=generator).tolist()
        buckets = length_buckets(lengths, overhead)
        assert sorted(row for rows in buckets for row in rows) == list(range(count))
        cost = sum(len(rows) * max(lengths[row] for row in rows) + overhead for rows in buckets)
        assert cost == cheapest(lengths, overhead)
    assert length_buckets([], overhead) == []


def test_sentences_by_length_have_embeddings_and_gradients_of_one_padded_batch(encoder, calls):
    encoder.eval()
    batch, found = batch_of(5, 40, 6, *[7] * 20, 39, 3), []
    for given in (batch, batch._replace(token_ids=None)):
        calls.clear()
        encoder.zero_grad()
        embedded = encoder(given)
        sum(value.square().sum() for value in embedded.values()).backward()
        found.append([*embedded.values(), *(p.grad.clone() for p in encoder.parameters())])
        assert (calls == [(25, 40)]) == (given is not batch)
    for by_length, padded in zip(*found, strict=True):
        torch.testing.assert_close(by_length, padded, rtol=1e-4, atol=1e-5)


def test_few_short_sentences_stay_together(encoder, calls):
    encoder(batch_of(4, 5, 9, 6))
    assert calls == [(4, 9)]


def test_a_frozen_language_model_builds_no_graph_but_keeps_its_dropout(encoder):
    encoder.bert.requires_grad_(False)
    batch = batch_of(9, 10)
    first, second = encoder(batch)['iou'], encoder(batch)['iou']
    assert not torch.equal(first, second)
    assert not encoder.token_means(batch).requires_grad
    first.sum().backward()
    assert all(parameter.grad is None for parameter in encoder.bert.parameters())
    assert encoder.fc_iou.weight.grad is not None


def test_pooling_and_normalization_stay_in_float32_under_autocast(encoder):
    encoder.eval()
    seen = []
    encoder.layernorm.register_forward_hook(
        lambda module, given, result: seen.append((given[0].dtype, result.dtype))
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        encoder(batch_of(4, 9, 5))
    assert seen == [(torch.float32, torch.float32)]


SIZES = dict(
    bert=dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32),
    roberta=dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32),
    distilbert=CONFIG,
)


@pytest.mark.parametrize('kind', SIZES)
@pytest.mark.parametrize('lengths', [(7, 7, 7), (3, 7, 5)], ids=['one length', 'padded'])
def test_the_mask_is_the_one_that_transformers_makes(kind, lengths):
    torch.manual_seed(0)
    config = dict(SIZES[kind], vocab_size=50, model_type=kind, max_position_embeddings=64)
    encoder, batch = SentenceEncoder(8, config=config).eval(), batch_of(*lengths)
    asked = encoder._token_means(batch._replace(token_ids=None))
    assert torch.equal(encoder._token_means(batch), asked)


def test_a_frozen_language_model_goes_over_each_sentence_once(calls):
    torch.manual_seed(1)
    encoder = SentenceEncoder(8, config=CONFIG, frozen=True).train()
    plain = SentenceEncoder(8, config=CONFIG).eval()
    plain.load_state_dict(encoder.state_dict())
    first, second = batch_of(5, 9, 5, seed=0), batch_of(5, 9, 5, seed=2)
    for batch in (first, second, first):
        found, expected = encoder(batch), plain(batch)
        for space in encoder.spaces:
            torch.testing.assert_close(found[space], expected[space], rtol=1e-5, atol=1e-5)
    of_plain = calls[1::2]
    assert len(of_plain) < 6
    calls.clear()
    encoder(first), encoder(second)
    assert calls == []
    sum(value.sum() for value in encoder(first).values()).backward()
    assert all(parameter.grad is None for parameter in encoder.bert.parameters())
    assert encoder.fc_iou.weight.grad is not None


def test_projections_can_begin_as_the_identity():
    encoder, batch = SentenceEncoder(16, config=CONFIG, identity=True).eval(), batch_of(5, 9)
    means = encoder.layernorm(encoder.token_means(batch))
    torch.testing.assert_close(encoder(batch)['iou'], means)
    with pytest.raises(ValueError, match=r'identity=True: a space of 16 .* to 16, or identity='):
        SentenceEncoder(8, config=CONFIG, identity=True)


@pytest.mark.parametrize('change', ['weights', 'numbers'])
def test_what_a_frozen_language_model_kept_goes_with_its_weights(change):
    encoder, batch = SentenceEncoder(8, config=CONFIG, frozen=True), batch_of(5, 9)
    before = encoder.token_means(batch)
    if change == 'weights':
        encoder.load_state_dict(SentenceEncoder(8, config=CONFIG).state_dict())
        assert not torch.allclose(encoder.token_means(batch), before)
    else:
        assert encoder.double().token_means(batch).dtype == torch.float64
