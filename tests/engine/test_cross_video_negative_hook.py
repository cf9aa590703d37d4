"""Options, schedule and stored state of the negatives."""

import contextlib
import logging
import shutil
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

from mmn_plugin.engine import CrossVideoNegativeHook
from mmn_plugin.models import NegativeSource


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scope='everywhere'), "scope='everywhere': give 'local' or 'global'"),
        (dict(queue_size=-1), 'queue_size=-1'),
        (dict(queue_size=1.5), 'queue_size=1.5'),
        (dict(scope='global', weight=0.0), 'weight=0.0'),
        (dict(weight=0.5), 'weight=0.5: it acts on negatives from outside'),
    ],
)
def test_a_source_out_of_range_or_without_effect_is_refused(options, message):
    with pytest.raises(ValueError, match=f'model.head.negatives.{message}'):
        NegativeSource(**options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(from_epoch=0), 'from_epoch=0: epochs count from 1'),
        (dict(late_factor=-1), 'late_factor=-1'),
        (dict(full_through_epoch=-1), 'full_through_epoch=-1'),
    ],
)
def test_a_schedule_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=f'CrossVideoNegativeHook: {message}'):
        CrossVideoNegativeHook(**(dict(full_through_epoch=1) | options))


def runner_of(source=None, epoch=0, videos=8, max_epochs=5, resume=True, modules=()):
    loader = SimpleNamespace(dataset=range(videos))
    return SimpleNamespace(
        epoch=epoch,
        max_epochs=max_epochs,
        train_dataloader=loader,
        _resume=resume,
        model=SimpleNamespace(
            head=SimpleNamespace(negatives=source or NegativeSource()),
            modules=lambda: iter(modules),
        ),
    )


def test_wider_negatives_begin_at_their_epoch():
    hook, source = CrossVideoNegativeHook(1, from_epoch=2), NegativeSource(queue_size=4)
    runner, seen = runner_of(source), []
    for runner.epoch in range(4):
        hook.before_train_epoch(runner)
        pools = source.collect(random_candidates([1], 'abcd'[runner.epoch])).pools
        seen.append([pool.candidates.video_ids for pool in pools])
    assert seen == [[['a']], [['b']], [['c'], ['b']], [['d'], ['b', 'c']]]


def test_an_epoch_for_wider_negatives_that_there_are_not_is_refused():
    with pytest.raises(ValueError, match='from_epoch=3: it acts on negatives from outside'):
        CrossVideoNegativeHook(1, from_epoch=3).before_train(runner_of())


@pytest.mark.parametrize(
    ('source', 'from_epoch', 'said'),
    [
        (dict(scope='global'), 6, 'is after the last epoch'),
        (dict(queue_size=8), 1, 'reaches over a whole epoch'),
        (dict(queue_size=7), 5, None),
    ],
)
def test_options_that_are_hardly_meant_are_said(source, from_epoch, said):
    module = 'mmn_plugin.engine.schedules.print_log'
    with mock.patch(module) as log:
        hook = CrossVideoNegativeHook(1, from_epoch=from_epoch)
        hook.before_train(runner_of(NegativeSource(**source)))
    assert [
        said in call.args[0] and call.args[2] == logging.WARNING for call in log.call_args_list
    ] == ([True] if said else [])


def test_synchronised_batchnorm_is_refused_where_pytorch_has_none():
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
        with mock.patch('mmn_plugin.models.negatives.get_world_size', return_value=ranks):
            source = NegativeSource(scope, queue_size=4)
            source.bank.push(random_candidates([1, 2], 'ab', list('xyz')))
            states = dict(rank=source.rank_state(), common=source.common_state())
            assert [bool(states[kind]) for kind in ('rank', 'common')] == [not common, common]
            other = NegativeSource(scope, queue_size=4)
            kind = 'common' if common else 'rank'
            getattr(other, f'load_{kind}_state')(states[kind])
            assert other.bank.candidates(torch.device('cpu')).video_ids == ['a', 'b']
    assert NegativeSource().rank_state() == NegativeSource().common_state() == {}


@pytest.fixture(scope='module')
def queue_config(tmp_path_factory):
    """A run whose only memory, beside weights and optimizer, is the queue; it trained 3 epochs."""
    folder = tmp_path_factory.mktemp('queue')
    extra = (
        'default_hooks = dict(negatives=dict(full_through_epoch=3, from_epoch=2))\n'
        "model['head'] = dict(negatives=dict(scope='global', queue_size=5, "
        'exclude_same_text=True))\n'
    )
    config = Config.fromfile(
        write_config(
            folder / 'tiny.py', write_corpus(folder / 'corpus'), epochs=3, dropout=0.0, extra=extra
        )
    )
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.default_hooks.checkpoint.update(interval=1, save_best=None, max_keep_ckpts=-1)
    config.work_dir = str(folder / 'whole')
    Runner.from_cfg(config).train()
    return config


def stored(config, epoch):
    return torch.load(f'{config.work_dir}/epoch_{epoch}.pth', weights_only=True)


def bank_of(config, epoch):
    """File of what all ranks have in common."""
    (found,) = Path(config.work_dir).glob(f'run_state/epoch_{epoch}.pth-*/common.pth')
    return found


def test_the_queue_fills_from_its_epoch_on_and_stays_out_of_the_checkpoint(queue_config):
    banks = [torch.load(bank_of(queue_config, epoch), weights_only=True) for epoch in (1, 2, 3)]
    assert [len(bank['model.head.negatives']['video_ids']) for bank in banks] == [0, 5, 5]
    assert set(stored(queue_config, 3)) == {
        'meta',
        'state_dict',
        'message_hub',
        'optimizer',
        'param_schedulers',
        'run_state',
    }


@pytest.mark.parametrize('how', ['with the bank', 'loaded to a device', 'without the bank'])
def test_a_resumed_run_goes_on_with_the_same_queue_bit_for_bit(queue_config, how, tmp_path):
    shutil.copytree(queue_config.work_dir, tmp_path / 'work')
    config = queue_config.copy()
    config.work_dir, config.experiment_name = str(tmp_path / 'work'), f'resumed {how}'
    config.load_from, config.resume = str(tmp_path / 'work/epoch_2.pth'), True
    if how == 'without the bank':
        path = bank_of(config, 2)
        empty = NegativeSource(queue_size=5).common_state()
        torch.save({'model.head.negatives': empty}, path)
    with checkpoints_on_device() if how == 'loaded to a device' else contextlib.nullcontext():
        Runner.from_cfg(config).train()
    whole, resumed = (stored(c, 3)['state_dict'] for c in (queue_config, config))
    same = all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert same == (how != 'without the bank')  # the weights differ, so the test can fail
