"""What happens at which epoch; options and schedule of the negatives."""

from types import SimpleNamespace
from unittest import mock

import pytest
from helpers.random_candidates import joined_candidates, random_candidates
from mmengine.model import convert_sync_batchnorm
from torch import nn

from mmn_plugin.engine import CrossVideoNegativeHook, FreezeLanguageModelHook
from mmn_plugin.models import NegativeSource


def runner_of(source=None, epoch=0, modules=(), **model):
    return SimpleNamespace(
        epoch=epoch,
        max_epochs=5,
        logger=mock.Mock(),
        model=SimpleNamespace(
            head=SimpleNamespace(negatives=source or NegativeSource()),
            modules=lambda: iter(modules),
            **model,
        ),
    )


def test_the_language_model_trains_after_the_last_frozen_epoch():
    hook, text_encoder = FreezeLanguageModelHook(through_epoch=2), nn.Module()
    text_encoder.bert, text_encoder.layernorm = nn.Linear(2, 2), nn.LayerNorm(2)
    seen = []
    for epoch in range(4):
        hook.before_train_epoch(runner_of(epoch=epoch, text_encoder=text_encoder))
        seen.append([p.requires_grad for p in text_encoder.bert.parameters()])
    assert seen == [[False] * 2] * 2 + [[True] * 2] * 2
    assert all(p.requires_grad for p in text_encoder.layernorm.parameters())


def test_a_language_model_that_its_encoder_keeps_frozen_is_refused():
    hook, text_encoder = FreezeLanguageModelHook(through_epoch=2), nn.Module()
    text_encoder.bert = nn.Linear(2, 2)
    hook.before_train(runner_of(text_encoder=text_encoder))  # an encoder of any class
    text_encoder.bert.requires_grad_(False)
    with pytest.raises(ValueError, match='frozen in every epoch'):
        hook.before_train(runner_of(text_encoder=text_encoder))


def test_the_contrastive_factor_falls_and_wider_negatives_begin_at_their_epochs():
    hook, source = CrossVideoNegativeHook(2, from_epoch=3), NegativeSource('global', weight=0.5)
    runner, factors, seen, weights = runner_of(source), [], [], []
    own, other = random_candidates([1], 'a'), random_candidates([1], 'b')
    of_two_ranks = dict(
        get_world_size=lambda: 2,
        gather_candidates=lambda own, rows: (joined_candidates(other, own), (1, 1), rows),
    )
    with mock.patch.multiple('mmn_plugin.models.negatives', **of_two_ranks):
        for runner.epoch in range(4):
            hook.before_train_epoch(runner)
            factors.append(runner.model.head.contrastive_factor)
            seen.append((found := source.collect(own)).candidates.video_ids)
            weights.append(found.log_weight.exp().tolist())
    assert factors == [1.0, 1.0, 0.01, 0.01]
    assert seen == [['a'], ['a'], ['b', 'a'], ['b', 'a']]
    assert weights == [[1], [1], [0.5, 1], [0.5, 1]]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scope='everywhere'), "scope='everywhere': give 'local' or 'global'"),
        (dict(scope='global', weight=0.0), 'weight=0.0'),
        (dict(weight=0.5), "weight=0.5: scope='local' has no negatives to weigh"),
    ],
)
def test_a_source_out_of_range_or_without_effect_is_refused(options, message):
    with pytest.raises(ValueError, match=f'model.head.negatives.{message}'):
        NegativeSource(**options)


def test_a_schedule_out_of_range_or_without_effect_is_refused():
    for options in (dict(from_epoch=0), dict(late_factor=-1), dict(full_through_epoch=-1)):
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f'CrossVideoNegativeHook: .*{name}={value}[,:]'):
            CrossVideoNegativeHook(**(dict(full_through_epoch=1) | options))
    with pytest.raises(ValueError, match='from_epoch=3: it acts on negatives from outside'):
        CrossVideoNegativeHook(1, from_epoch=3).before_train(runner_of())


@pytest.mark.parametrize(
    ('source', 'from_epoch', 'said'),
    [
        (dict(scope='global'), 6, r'after the last epoch (5)'),
        (dict(scope='global'), 5, None),
    ],
)
def test_options_that_are_hardly_meant_are_said(source, from_epoch, said):
    runner = runner_of(NegativeSource(**source))
    CrossVideoNegativeHook(1, from_epoch=from_epoch).before_train(runner)
    warnings = [call.args[0] for call in runner.logger.warning.call_args_list]
    assert [said in text for text in warnings] == ([True] if said else [])


def test_synchronized_batchnorm_is_refused_where_pytorch_has_none():
    model = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), 'torch')
    hook, runner = CrossVideoNegativeHook(1), runner_of(modules=list(model.modules()))
    hook.before_train(runner)  # a single process needs no synchronization
    with (
        mock.patch('mmn_plugin.engine.schedules.get_world_size', return_value=2),
        pytest.raises(ValueError, match='needs GPUs'),
    ):
        hook.before_train(runner)
