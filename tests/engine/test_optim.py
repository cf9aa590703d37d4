"""Optimizers of few groups compute what those of MMEngine's constructor do."""

import copy
import logging
import re
from types import SimpleNamespace

import pytest
import torch
from helpers.away_device import AWAY
from helpers.tiny_models import batch_of, build_tiny
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import MultiStepLR, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmn_plugin.engine import FreezeLanguageModelHook

OURS, THEIRS = 'GroupedOptimWrapperConstructor', 'DefaultOptimWrapperConstructor'
PARAMWISE = dict(custom_keys=dict(bert=dict(lr_mult=0.1), neck=dict(lr_mult=0.1)))


def wrapper_of(model, constructor=OURS, kind='AdamW', paramwise=PARAMWISE, **settings):
    optimizer = dict(type=kind, lr=0.01, weight_decay=0.1, **settings)
    wrapper = dict(optimizer=optimizer, paramwise_cfg=paramwise, constructor=constructor)
    return build_optim_wrapper(model, copy.deepcopy(wrapper))


@pytest.fixture(autouse=True)
def scope():
    """Where a run looks for constructors."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        yield


def train(model, wrapper, steps=range(4)):
    """Weights after steps of which the first has the language model frozen."""
    for step in steps:
        FreezeLanguageModelHook.freeze(model, step < 1)
        losses = model(**batch_of(model), mode='loss')
        wrapper.update_params(sum(losses.values()))
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture
def said():
    """What is logged."""
    logger, lines = MMLogger.get_current_instance(), []
    handler = SimpleNamespace(
        level=logging.INFO, handle=lambda record: lines.append(record.getMessage())
    )
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_tensors_of_the_same_settings_are_one_group_and_one_line_of_the_log(said):
    model = build_tiny()
    paramwise = dict(PARAMWISE, norm_decay_mult=0.0)
    groups = wrapper_of(model, paramwise=paramwise).optimizer.param_groups
    lines = [re.fullmatch(r'(\d+) tensors with lr=(.*), weight_decay=(.*)', line) for line in said]
    assert [(int(line[1]), float(line[2]), float(line[3])) for line in lines] == [
        (len(group['params']), group['lr'], group['weight_decay']) for group in groups
    ]
    assert len(groups) == 3  # the norm outside the language model and the neck has no decay
    theirs = wrapper_of(model, THEIRS, paramwise=paramwise).optimizer.param_groups
    assert len(theirs) == len([*model.parameters()])
    for group in theirs:
        (own,) = (one for one in groups if any(p is group['params'][0] for p in one['params']))
        assert (own['lr'], own['weight_decay']) == (group['lr'], group['weight_decay'])


@pytest.mark.parametrize('kind', ['AdamW', 'SGD'])
def test_merged_groups_train_to_the_same_bits_through_freezing_and_schedules(kind):
    weights = []
    for constructor in (OURS, THEIRS):
        model = build_tiny()
        wrapper = wrapper_of(model, constructor, kind, foreach=False)
        assert all(not group['fused'] for group in wrapper.optimizer.param_groups)
        schedule = MultiStepLR(wrapper, milestones=[1, 2], gamma=0.5)
        for step in range(3):
            weights.append(train(model, wrapper, [step]))
            schedule.step()
        rates = {group['lr'] for group in wrapper.optimizer.param_groups}
        assert rates == {0.0025, 0.00025}
    for ours, theirs in zip(weights[:3], weights[3:], strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize('kind', ['Adam', 'AdamW', 'SGD'])
def test_fused_steps_are_the_same_to_rounding(kind):
    weights = []
    for settings in ({}, dict(fused=False)):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1)).double()
        wrapper = wrapper_of(layers, OURS, kind, None, **settings)
        assert bool(wrapper.optimizer.defaults['fused']) == (not settings)
        for _ in range(10):
            wrapper.update_params(layers(torch.randn(3, 5).double()).square().mean())
        weights.append(nn.utils.parameters_to_vector(layers.parameters()))
    torch.testing.assert_close(*weights, rtol=1e-11, atol=1e-13)


def test_what_cannot_be_fused_or_is_not_to_be_is_left(said):
    def defaults(model, **settings):
        return wrapper_of(model, **settings).optimizer.defaults

    assert defaults(build_tiny())['fused']
    assert not defaults(build_tiny().to(AWAY))['fused']
    assert not defaults(build_tiny(), foreach=True)['fused']
    assert 'fused' not in defaults(build_tiny(), kind='RMSprop')
    assert not [line for line in said if 'paramwise' in line or 'fused' in line]


@pytest.mark.parametrize('before', [{}, dict(fused=False)], ids=['fused', 'not fused'])
def test_a_loaded_state_goes_on_as_this_run_computes(before):
    model = build_tiny()
    wrapper = wrapper_of(model, **before)
    train(model, wrapper, range(2))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(wrapper.state_dict())
    expected, resumed = train(model, wrapper, [2]), build_tiny()
    resumed.load_state_dict(weights)
    wrapper = wrapper_of(resumed)
    wrapper.load_state_dict(state)
    assert all(group['fused'] for group in wrapper.optimizer.param_groups)
    found = train(resumed, wrapper, [2])
    if before:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    else:
        assert torch.equal(found, expected)


def test_a_loaded_state_does_not_undo_what_the_config_says_of_steps():
    model = build_tiny()
    fused = wrapper_of(model)
    train(model, fused, [0])
    wrapper = wrapper_of(build_tiny(), foreach=True)
    wrapper.load_state_dict(copy.deepcopy(fused.state_dict()))
    assert all(group['foreach'] for group in wrapper.optimizer.param_groups)
    assert not any(group['fused'] for group in wrapper.optimizer.param_groups)


@pytest.mark.parametrize('name', ['mmn_charades.py', 'mscl_charades.py', 'mmn_hcstvg.py'])
def test_configs_have_a_group_for_the_language_model_and_one_for_the_rest(name):
    config = Config.fromfile(f'mmn_plugin::{name}').optim_wrapper
    optimizer = build_optim_wrapper(build_tiny(name), config).optimizer
    rest, language_model = [group['lr'] for group in optimizer.param_groups]
    assert language_model == pytest.approx(0.1 * rest)
    assert optimizer.defaults['fused']


def test_frozen_parameters_are_not_listed_one_by_one(said):
    model = build_tiny('mmn_charades.py')
    model.text_encoder.bert.requires_grad_(False)
    wrapper_of(model, paramwise=dict(custom_keys={}))
    assert not [line for line in said if 'skipped' in line]
    assert [line for line in said if 'tensors with lr' in line]
