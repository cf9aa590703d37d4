"""Sentences by length, and from the memory of a frozen language model."""

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


def frozen_encoder(**kwargs):
    torch.manual_seed(1)
    encoder = SentenceEncoder(8, config=CONFIG, cache_frozen=True, **kwargs)
    encoder.bert.requires_grad_(False)
    return encoder


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


def test_an_empty_batch_has_no_buckets():
    assert length_buckets([], 64) == []


def test_sentences_by_length_have_the_embeddings_of_one_padded_batch(encoder, calls):
    encoder.eval()
    batch = batch_of(5, 40, 6, *[7] * 20, 39, 3)
    by_length = encoder(batch)
    assert len(calls) > 1
    calls.clear()
    padded = encoder(batch._replace(token_ids=None))
    assert calls == [(25, 40)]
    for space in padded:
        torch.testing.assert_close(by_length[space], padded[space], rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_one_padded_batch(encoder):
    encoder.eval()
    batch, gradients = batch_of(5, 40, 6, *[7] * 20, 39, 3), []
    for given in (batch, batch._replace(token_ids=None)):
        encoder.zero_grad()
        sum(value.square().sum() for value in encoder(given).values()).backward()
        gradients.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for by_length, padded in zip(*gradients, strict=True):
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


def test_kept_sentences_are_not_computed_again(calls):
    encoder, batch = frozen_encoder(), batch_of(4, 9, 5)
    kept = encoder.cache.means  # what the layers after it round, differently for other sizes
    encoder(batch)
    first = kept(encoder, batch)
    calls.clear()
    taken = batch.take([2, 0, 1, 2])
    encoder(taken)
    assert torch.equal(kept(encoder, taken), first[[2, 0, 1, 2]])
    assert calls == []
    assert encoder.bert.training
    more = batch_of(4, 6, seed=7)
    ids = [*batch.token_ids, *more.token_ids, more.token_ids.ids[1]]
    mixed = batch_of(*map(len, ids))
    for row, sentence in enumerate(ids):
        mixed.input_ids[row, : len(sentence)] = torch.tensor(sentence)
    mixed = kept(encoder, mixed._replace(token_ids=TokenIds(ids)))
    assert calls == [(2, 6)]  # the unseen ones, once
    assert torch.equal(mixed[:3], first)
    assert torch.equal(mixed[4], mixed[5])


def test_kept_sentences_have_no_dropout_and_train_what_follows(encoder):
    cached, batch = frozen_encoder(), batch_of(4, 9, 5)
    encoder.eval()
    for _ in range(2):
        embeddings = cached(batch)
        torch.testing.assert_close(embeddings['iou'], encoder(batch)['iou'], rtol=1e-6, atol=1e-6)
    embeddings['iou'].sum().backward()
    assert cached.fc_iou.weight.grad is not None
    assert cached.layernorm.weight.grad is not None


def test_sentences_without_host_ids_are_found_as_well(calls):
    encoder, batch = frozen_encoder(), batch_of(4, 9, 5)
    encoder(batch)
    calls.clear()
    encoder(batch._replace(token_ids=None))
    assert calls == []


@pytest.mark.parametrize('change', ['unfreeze', 'load', 'load part', 'in place', 'cast'])
def test_it_is_emptied_when_the_weights_may_change(change):
    encoder, batch = frozen_encoder().eval(), batch_of(4, 9, 5)
    before = encoder(batch)['iou']
    weights = {
        key: value + 0.1 * torch.randn_like(value) for key, value in encoder.state_dict().items()
    }
    if change == 'unfreeze':
        encoder.bert.requires_grad_(True)
        encoder(batch)
        assert len(encoder.cache) == 0
        return
    if change == 'load':
        encoder.load_state_dict(weights)
    elif change == 'load part':
        encoder.bert.load_state_dict(
            {key.removeprefix('bert.'): value for key, value in weights.items() if 'bert' in key}
        )
    elif change == 'in place':
        with torch.no_grad():
            next(encoder.bert.parameters()).add_(1.0)
    else:
        encoder.double()
    after = encoder(batch)['iou']
    fresh = SentenceEncoder(8, config=CONFIG).to(after.dtype).eval()
    fresh.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(after, fresh(batch)['iou'], rtol=1e-5, atol=1e-6)
    assert change == 'cast' or not torch.allclose(after, before)


def test_it_is_no_part_of_a_checkpoint():
    encoder = frozen_encoder()
    keys = list(encoder.state_dict())
    encoder(batch_of(4, 9, 5))
    assert list(encoder.state_dict()) == keys
    assert keys == list(SentenceEncoder(8, config=CONFIG).state_dict())


def test_its_size_is_bounded_and_a_full_one_still_answers():
    encoder, batch = frozen_encoder(cache_size=2), batch_of(4, 9, 5)
    first = encoder(batch)['iou']
    assert len(encoder.cache) == 2
    torch.testing.assert_close(encoder(batch)['iou'], first, rtol=1e-6, atol=1e-6)
    assert len(encoder.cache) == 2


@pytest.mark.parametrize('first', ['train', 'test'])
def test_sentences_seen_in_inference_mode_do_not_hinder_training(calls, first):
    encoder, batch = frozen_encoder(), batch_of(4, 9, 5)
    if first == 'train':
        encoder(batch.take([0]))
    with torch.inference_mode():
        encoder(batch.take([0, 1]))
        seen = encoder.cache.means(encoder, batch.take([0, 1]))
    trained = encoder(batch)['iou']
    trained.sum().backward()
    assert torch.equal(encoder.cache.means(encoder, batch)[:2], seen)
    assert len(encoder.cache) == 3
    calls.clear()
    assert torch.equal(encoder(batch)['iou'], trained)
    assert calls == []


def test_precisions_are_kept_apart(calls):
    encoder, batch = frozen_encoder(), batch_of(4, 9, 5)
    exact = encoder(batch)['iou']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        encoder(batch)
    assert len(calls) == 2
    assert torch.equal(encoder(batch)['iou'], exact)


def test_pooling_and_normalisation_stay_in_float32_under_autocast(encoder):
    encoder.eval()
    seen = []
    encoder.layernorm.register_forward_hook(
        lambda module, given, result: seen.append((given[0].dtype, result.dtype))
    )
    with torch.autocast('cpu', dtype=torch.bfloat16):
        encoder(batch_of(4, 9, 5))
    assert seen == [(torch.float32, torch.float32)]
