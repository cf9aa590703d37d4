"""The moving average of the encoders, and what a bank keeps of it."""

import pytest
import torch
from helpers.tiny_corpus import VOCABULARY, tiny_model
from helpers.tiny_weak import tiny_weak_model
from helpers.two_rank_training import sample
from mmaction.registry import MODELS
from mmengine.config import Config

from mmn_plugin.models.momentum_encoder import ENCODERS

MOMENTUM = 0.75


def built(name, tiny):
    config = Config.fromfile(f'mmn_plugin::{name}_charades.py')
    config.merge_from_dict(dict(model=tiny('unused', 0.0)))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    config.model.head.negatives = dict(queue_size=4, momentum=MOMENTUM)
    return MODELS.build(config.model).train()


def loss(model, *videos):
    inputs, samples = zip(*(sample(name, 2) for name in videos), strict=True)
    data = model.data_preprocessor(dict(inputs=list(inputs), data_samples=list(samples)))
    return model(**data, mode='loss')


def test_the_average_moves_before_each_batch_and_is_no_part_of_the_model():
    model = built('mmn', tiny_model)
    names = set(model.state_dict()), {name for name, _ in model.named_parameters()}
    average, weight = model.head.negatives.momentum_encoder, model.backbone.conv.weight
    assert average.common_state() == {}
    expected, name = weight.detach().clone(), 'backbone.conv.weight'
    for batch in ('ab', 'cd', 'ef'):
        expected = MOMENTUM * expected + (1 - MOMENTUM) * weight.detach()
        found = loss(model, *batch)
        torch.testing.assert_close(average.common_state()[name], expected)
        assert {'loss_vid_keys', 'loss_sent_keys'} < set(found)
        sum(found.values()).backward()
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
    assert not torch.allclose(expected, weight)
    assert (set(model.state_dict()), {name for name, _ in model.named_parameters()}) == names
    other = built('mmn', tiny_model)  # its weights are others
    other.head.negatives.momentum_encoder.load_common_state(average.common_state())
    loss(other, 'a', 'b')
    found = other.head.negatives.momentum_encoder.common_state()[name]
    expected = MOMENTUM * expected + (1 - MOMENTUM) * other.backbone.conv.weight.detach()
    torch.testing.assert_close(found, expected)


def test_what_was_never_trained_is_not_kept_twice():
    model = built('mmn', tiny_model)
    model.text_encoder.bert.requires_grad_(False)
    for batch in ('ab', 'cd'):
        loss(model, *batch)
    stored = model.head.negatives.momentum_encoder.common_state()
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert stored.keys() == trained


@pytest.mark.parametrize('piece', [None, 1])
def test_the_bank_keeps_what_the_average_embeds(piece):
    model = built('mmn', tiny_model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    source = model.head.negatives
    loss(model, 'a', 'b')
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    loss(model, 'c', 'd')
    source.settle()
    held = source.bank.candidates(torch.device('cpu'))
    assert held.video_ids == list('abcd')
    source.momentum_encoder.momentum = 1.0  # it stays where it is
    data = [sample(name, 2) for name in 'cd']
    inputs, samples = map(list, zip(*data, strict=True))
    batch = model.data_preprocessor(dict(inputs=inputs, data_samples=samples))
    encoders = {name: getattr(model, name) for name in ENCODERS}
    moments, sentences = source.momentum_encoder(encoders, tuple(batch.values()), piece)
    for mine, kept in ((moments, held.moments[2:]), (sentences, held.sentences[4:])):
        unit = torch.nn.functional.normalize(mine['contrastive'], dim=-1)
        torch.testing.assert_close(unit, kept)
    now = torch.nn.functional.normalize(
        model.text_encoder(batch['sentences'])['contrastive'], dim=-1
    )
    assert not torch.allclose(now, held.sentences[4:], atol=0.1)


def test_a_head_without_a_loss_against_keys_refuses_a_momentum():
    with pytest.raises(ValueError, match='this head gives none: leave it out'):
        loss(built('mscl', tiny_weak_model), 'a', 'b')
