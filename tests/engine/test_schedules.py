"""What happens at which epoch; options, schedule and stored state of the negatives."""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from helpers.on_device import checkpoints_on_device
from helpers.random_candidates import random_candidates
from helpers.tiny_corpus import write_config, write_corpus
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner
from torch import nn

from mmn_plugin.engine import CrossVideoNegativeHook, FreezeLanguageModelHook
from mmn_plugin.models import NegativeSource


def runner_of(source=None, epoch=0, modules=(), **model):
    return SimpleNamespace(
        epoch=epoch,
        max_epochs=5,
        train_dataloader=SimpleNamespace(dataset=range(8)),
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
    hook, source = CrossVideoNegativeHook(2, from_epoch=2), NegativeSource(queue_size=4)
    runner, factors, seen = runner_of(source), [], []
    for runner.epoch in range(4):
        hook.before_train_epoch(runner)
        factors.append(runner.model.head.contrastive_factor)
        pools = source.collect(random_candidates([1], 'abcd'[runner.epoch])).pools
        seen.append([pool.candidates.video_ids for pool in pools])
    assert factors == [1.0, 1.0, 0.01, 0.01]
    assert seen == [[['a']], [['b']], [['c'], ['b']], [['d'], ['b', 'c']]]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scope='everywhere'), "scope='everywhere': give 'local' or 'global'"),
        (dict(queue_size=-1), 'queue_size=-1'),
        (dict(queue_size=1.5), 'queue_size=1.5'),
        (dict(scope='global', weight=0.0), 'weight=0.0'),
        (dict(weight=0.5), "weight=0.5: scope='local', queue_size=0 has no negatives to weigh"),
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
        (dict(queue_size=8), 1, 'over a whole epoch of 8 videos'),
        (dict(queue_size=7), 1, None),
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


def test_each_rank_keeps_its_own_bank_with_local_scope_and_all_one_with_global():
    for ranks, scope, common in ((1, 'local', True), (2, 'local', False), (2, 'global', True)):
        with mock.patch('mmn_plugin.models.negative_source.get_world_size', return_value=ranks):
            source = NegativeSource(scope, queue_size=4)
            source.bank.push(replace(random_candidates([1, 2], 'ab', list('xyz')), meaning=None))
            states = dict(rank=source.rank_state(), common=source.common_state())
            assert [bool(states[kind]) for kind in ('rank', 'common')] == [not common, common]
            other = NegativeSource(scope, queue_size=4)
            kind = 'common' if common else 'rank'
            getattr(other, f'load_{kind}_state')(states[kind])
            assert other.bank.candidates(torch.device('cpu')).video_ids == ['a', 'b']
    assert NegativeSource().rank_state() == NegativeSource().common_state() == {}


@pytest.fixture(scope='module', params=[None, 0.9], ids=['queue', 'queue of a momentum encoder'])
def queue_config(request, tmp_path_factory):
    """A run whose only memory, beside weights and optimizer, is the queue; it trained 3 epochs."""
    folder = tmp_path_factory.mktemp('queue')
    extra = (
        'default_hooks = dict(negatives=dict(full_through_epoch=3, from_epoch=2))\n'
        "model['head'] = dict(negatives=dict(scope='global', queue_size=5, "
        f'exclude_same_text=True, momentum={request.param}))\n'
    )
    corpus = write_corpus(folder / 'corpus')
    path = write_config(folder / 'tiny.py', corpus, epochs=3, dropout=0.0, extra=extra)
    config = Config.fromfile(path)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.default_hooks.checkpoint.update(interval=1, save_best=None, max_keep_ckpts=-1)
    config.work_dir = str(folder / 'whole')
    Runner.from_cfg(config).train()
    return config


def bank_of(config, epoch):
    """File of what all ranks have in common."""
    (found,) = Path(config.work_dir).glob(f'run_state/epoch_{epoch}.pth-*/common.pth')
    return found


def test_the_queue_fills_from_its_epoch_on_and_stays_out_of_the_checkpoint(queue_config):
    banks = [torch.load(bank_of(queue_config, epoch), weights_only=True) for epoch in (1, 2, 3)]
    assert [len(bank['model.head.negatives']['video_ids']) for bank in banks] == [0, 5, 5]
    stored = torch.load(f'{queue_config.work_dir}/epoch_3.pth', weights_only=True)
    parts = ('meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers', 'run_state')
    assert set(stored) == set(parts)


@pytest.mark.parametrize('how', ['loaded to a device', 'without the bank'])
def test_a_resumed_run_goes_on_with_the_same_queue_bit_for_bit(queue_config, how, tmp_path):
    shutil.copytree(queue_config.work_dir, tmp_path / 'work')
    config = queue_config.copy()
    config.work_dir, config.experiment_name = str(tmp_path / 'work'), f'resumed {how}'
    config.load_from, config.resume = str(tmp_path / 'work/epoch_2.pth'), True
    if how == 'without the bank':
        empty = NegativeSource(queue_size=5).common_state()
        torch.save({'model.head.negatives': empty}, bank_of(config, 2))
    with checkpoints_on_device() if how == 'loaded to a device' else contextlib.nullcontext():
        Runner.from_cfg(config).train()
    whole, resumed = (
        torch.load(f'{folder}/epoch_3.pth', weights_only=True)['state_dict']
        for folder in (queue_config.work_dir, config.work_dir)
    )
    same = all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert same == (how != 'without the bank')  # the weights differ, so the test can fail
