"""Other projects' configs reach this package's, and in stock MMEngine they do not."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import config as config_module

from mmn_plugin.files import config_root

STOCK_PATH = Config._get_cfg_path.__wrapped__


def scopes(value):
    """Every ``_scope_`` anywhere in a config."""
    if isinstance(value, dict):
        own = [value['_scope_']] if '_scope_' in value else []
        return own + [scope for child in value.values() for scope in scopes(child)]
    if isinstance(value, (list, tuple)):
        return [scope for child in value for scope in scopes(child)]
    return []


def test_stock_mmengine_cannot_inherit_our_configs():
    for name in ('mmn_plugin::mmn_tacos.py', 'mmn_plugin::_base_/default_runtime.py'):
        with pytest.raises((ValueError, AssertionError)):
            STOCK_PATH(name, 'downstream.py')


def test_base_with_our_prefix_is_our_config(tmp_path):
    (tmp_path / 'own.py').write_text(
        "_base_ = 'mmn_plugin::mmn_tacos.py'\n"
        'model = dict(head=dict(top_n=9))\n'
        'mine = _base_.model\n'
    )
    config = Config.fromfile(tmp_path / 'own.py')
    ours = Config.fromfile(config_root() / 'mmn_tacos.py')
    assert scopes(config._cfg_dict.to_dict()) == scopes(ours._cfg_dict.to_dict()) == []
    assert config.mine == ours.model
    assert config.model.head.pop('top_n') == 9
    ours.model.head.pop('top_n')
    assert {**config, 'mine': None} == {**ours, 'mine': None}


def test_base_may_be_a_part_and_stand_in_a_list(tmp_path):
    (tmp_path / 'mine.py').write_text('mine = 1\n')
    (tmp_path / 'own.py').write_text(
        "_base_ = ['mmn_plugin::_base_/default_runtime.py', 'mine.py']\n"
    )
    config = Config.fromfile(tmp_path / 'own.py')
    assert config.mine == 1
    assert config.default_scope == 'mmaction'


def test_no_config_chooses_the_best_epoch_on_its_test_split():
    choosing = {}
    for path in config_root().glob('m*.py'):
        config = Config.fromfile(path)
        splits = [
            Path(loader.dataset.data_root, loader.dataset.ann_file)
            for loader in (config.val_dataloader, config.test_dataloader)
        ]
        choosing[path.stem] = splits[0] == splits[1], config.default_hooks.checkpoint.save_best
    assert {name for name, (same, _) in choosing.items() if same} == {
        'mmn_charades',
        'mscl_charades',
        'mmn_hcstvg',
    }
    assert {name for name, (same, best) in choosing.items() if same == bool(best)} == set()


def test_unknown_name_lists_the_configs():
    with pytest.raises(FileNotFoundError, match=r"'no\.py'.*mmn_charades\.py.*mmn_tacos\.py"):
        Config.fromfile('mmn_plugin::no.py')


def test_other_packages_are_left_to_mmengine():
    path, scope = Config._get_cfg_path('mmaction::_base_/default_runtime.py', 'x.py')
    assert (path, scope) == STOCK_PATH('mmaction::_base_/default_runtime.py', 'x.py')
    assert scope == 'mmaction'


READ_BASE = """
from mmengine.config import read_base

with read_base():
    from mmn_plugin.configs.mmn_tacos import *

model.update(head=dict(top_n=9))
train_dataloader.merge(dict(batch_size=7, dataset=dict(ann_file='mine.json')))
"""


def test_read_base_takes_our_text_style_config(tmp_path):
    (tmp_path / 'own.py').write_text(READ_BASE)
    config = Config.fromfile(tmp_path / 'own.py')
    ours = Config.fromfile('mmn_plugin::mmn_tacos.py')
    assert config.train_dataloader.batch_size == 7
    assert config.train_dataloader.dataset.ann_file == 'mine.json'
    assert config.train_dataloader.dataset.pipeline == ours.train_dataloader.dataset.pipeline
    assert config.model.head.top_n == 9
    assert config.model.neck == ours.model.neck
    config.dump(tmp_path / 'dumped.py')  # as the Runner does
    assert Config.fromfile(tmp_path / 'dumped.py').model == config.model


def test_stock_mmengine_cannot_read_base_from_us(tmp_path, monkeypatch):
    (tmp_path / 'own.py').write_text(READ_BASE)
    stock = config_module.get_installed_path.__wrapped__
    monkeypatch.setattr(config_module, 'get_installed_path', stock)
    with pytest.raises(Exception, match=r'mmn_tacos|mmn_plugin'):
        Config.fromfile(tmp_path / 'own.py')
