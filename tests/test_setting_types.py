"""Settings of another type than their component declares."""

from pathlib import Path

import numpy as np
import pytest
from mmaction.registry import HOOKS
from mmengine.config import Config

from mmn_plugin.config import config_errors, load_config
from mmn_plugin.engine import SimilarVideoHook
from mmn_plugin.errors import ConfigError
from mmn_plugin.files import config_root
from mmn_plugin.setting_types import require_component_types

HOOK = 'default_hooks.similar_videos'
WRONG = [
    (f'{HOOK}.interval', '2', 'a whole number'),
    (f'{HOOK}.batch_size', 2.5, 'a whole number'),
    (f'{HOOK}.batch_size', None, 'a whole number'),
    (f'{HOOK}.by', 1, 'a text'),
    ('train_dataloader.sampler.group_size', 4.0, 'a whole number'),
    ('train_dataloader.sampler.group_size', True, 'a whole number'),
    ('train_dataloader.sampler.share', [0, 25], 'a number'),
    ('train_dataloader.sampler.seed', '1', 'a whole number or None'),
    ('model.backbone.keep_features', 'no', 'True or False'),
    ('model.head.negatives', 'global', 'a dict or None'),
    ('model.head.nms_threshold', 'high', 'a number'),
    ('model.neck.features', 0.5, 'a whole number'),
]


def with_setting(name, value):
    config = load_config('mmn_charades.py')
    sampler = dict(_delete_=True, type='SimilarVideoSampler', group_size=2)
    hook = dict(type='SimilarVideoHook')
    config.merge_from_dict({'train_dataloader.sampler': sampler, HOOK: hook})
    config.merge_from_dict({name: value})
    return config


def refusal_of(config):
    """What is said of the types of a config's settings; None where nothing is."""
    try:
        with config_errors(config):
            return None
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(('name', 'value', 'kind'), WRONG)
def test_a_setting_of_another_type_is_named_with_the_file_and_what_it_must_be(name, value, kind):
    config = with_setting(name, value)
    assert refusal_of(config) == f'{config.filename}: {name}={value!r}: it must be {kind}'


def test_components_are_known_by_scope_and_by_class_as_well():
    for kind in ('mmaction.SimilarVideoHook', SimilarVideoHook):
        config = Config(dict(default_hooks=dict()))
        config.default_hooks.own = dict(type=kind, interval='2')
        with pytest.raises(ConfigError, match=r"default_hooks\.own\.interval='2': it must"):
            require_component_types(config)


@pytest.mark.parametrize('value', [2, np.int64(2)])
def test_numbers_of_any_kind_do(value):
    for name in ('train_dataloader.sampler.group_size', 'train_dataloader.sampler.share'):
        assert refusal_of(with_setting(name, value)) is None


def test_what_the_framework_takes_is_no_mistake():
    pretrained = [dict(type='Pretrained', checkpoint='x.pth')]
    for name, value in (
        ('train_dataloader.dataset.data_root', None),
        ('train_dataloader.dataset.data_root', Path('data')),
        ('train_dataloader.dataset.ann_file', Path('train.json')),
        ('model.init_cfg', pretrained),
    ):
        assert refusal_of(with_setting(name, value)) is None


def test_components_of_other_packages_are_left_to_them():
    config = Config(dict(default_hooks=dict(timer=dict(type='IterTimerHook', priority=1))))
    config.default_hooks.own = dict(type=OwnHook, number='1')
    config.default_hooks.named = dict(type='OwnHook', number='1')
    config.default_hooks.scoped = dict(type='my_project.SimilarVideoHook', interval='1')
    assert refusal_of(config) is None


@HOOKS.register_module()
class OwnHook:
    """Of a project that uses ours."""

    def __init__(self, number: int):
        self.number = number


def test_every_config_has_settings_of_the_declared_types():
    files = sorted(config_root().glob('*.py'))
    assert len(files) > 20
    for file in files:
        assert refusal_of(load_config(str(file))) is None
