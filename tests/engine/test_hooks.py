"""What happens at which epoch."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_corpus import VOCABULARY
from mmengine.optim import MultiStepLR
from torch import nn

from mmn_plugin.engine import (
    ArchitectureHook,
    CheckLossHook,
    CheckpointCheckHook,
    CrossVideoNegativeHook,
    FreezeLanguageModelHook,
    TokenizerHook,
)
from mmn_plugin.models import GroundingDataPreprocessor


def runner_of(epoch=0, **model):
    return SimpleNamespace(epoch=epoch, model=SimpleNamespace(**model))


def test_the_contrastive_factor_falls_after_the_last_full_epoch():
    hook, head = CrossVideoNegativeHook(full_through_epoch=2), SimpleNamespace()
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(runner_of(epoch, head=head))
        seen.append(head.contrastive_factor)
    assert seen == [1.0, 1.0, 0.01, 0.01]


def test_the_language_model_trains_after_the_last_frozen_epoch():
    hook, text_encoder = FreezeLanguageModelHook(through_epoch=2), nn.Module()
    text_encoder.bert, text_encoder.layernorm = nn.Linear(2, 2), nn.LayerNorm(2)
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(runner_of(epoch, text_encoder=text_encoder))
        seen.append([p.requires_grad for p in text_encoder.bert.parameters()])
    assert seen == [[False] * 2] * 2 + [[True] * 2] * 2
    assert all(p.requires_grad for p in text_encoder.layernorm.parameters())


def test_a_milestone_takes_effect_in_the_epoch_after_it():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = MultiStepLR(optimizer, milestones=[2], gamma=0.1), []
    for _ in range(4):  # epochs 1 to 4
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_no_number_stops_with_the_names_of_its_videos(value):
    samples = [SimpleNamespace(video_id='first'), SimpleNamespace(video_id='second')]
    outputs = dict(loss=torch.tensor(value), loss_iou=torch.tensor(1.0))
    with pytest.raises(FloatingPointError, match=r'epoch 3, iteration 8.*first, second'):
        CheckLossHook().after_train_iter(runner_of(2), 7, dict(data_samples=samples), outputs)


def preprocessor_of(vocabulary):
    return GroundingDataPreprocessor(dict(type='SentenceTokenizer', vocab=list(vocabulary)))


def test_a_checkpoint_carries_its_tokenizer_to_where_the_vocabulary_file_is_absent(tmp_path):
    checkpoint = dict(meta={})
    TokenizerHook().before_save_checkpoint(
        runner_of(data_preprocessor=preprocessor_of(VOCABULARY)), checkpoint
    )
    torch.save(checkpoint, tmp_path / 'x.pth')
    checkpoint = torch.load(tmp_path / 'x.pth', weights_only=True)
    other = GroundingDataPreprocessor(
        dict(type='SentenceTokenizer', vocab=str(tmp_path / 'absent.txt'))
    )
    TokenizerHook().after_load_checkpoint(runner_of(data_preprocessor=other), checkpoint)
    sentences = ['a red door', 'the box opens']
    assert other.tokenizer.encode(sentences) == preprocessor_of(VOCABULARY).tokenizer.encode(
        sentences
    )


@pytest.mark.parametrize('hook', [ArchitectureHook, CheckpointCheckHook, TokenizerHook])
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1], 'bad.pth holds a list'),
        (dict(state_dict=3), 'its state_dict is a int'),
        (dict(meta=None), "'meta' is None"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(hook, content, message):
    # by each of them, since a config may do without the others
    with pytest.raises(ValueError, match=message):
        hook().after_load_checkpoint(SimpleNamespace(_load_from='bad.pth'), content)


def test_a_checkpoint_of_another_vocabulary_is_refused_with_what_differs():
    checkpoint = dict(meta={})
    TokenizerHook().before_save_checkpoint(
        runner_of(data_preprocessor=preprocessor_of(VOCABULARY)), checkpoint
    )
    swapped = [*VOCABULARY[:-2], VOCABULARY[-1], VOCABULARY[-2]]
    with pytest.raises(ValueError, match=rf"another vocabulary.* 2 differ, .*'{swapped[-1]}'"):
        TokenizerHook().after_load_checkpoint(
            runner_of(data_preprocessor=preprocessor_of(swapped)), checkpoint
        )


def test_a_checkpoint_whose_tokenizer_was_written_down_otherwise_is_taken():
    checkpoint = dict(meta={})
    runner = runner_of(data_preprocessor=preprocessor_of(VOCABULARY))
    TokenizerHook().before_save_checkpoint(runner, checkpoint)
    state = checkpoint['meta']['tokenizer']
    state['tokenizer'] = json.dumps(json.loads(state['tokenizer']), indent=2, sort_keys=True)
    TokenizerHook().after_load_checkpoint(runner, checkpoint)
    state['tokenizer'] = '{}'
    with pytest.raises(ValueError, match='cannot be read by this release of tokenizers'):
        TokenizerHook().after_load_checkpoint(runner, checkpoint)
