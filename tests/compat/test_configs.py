"""Other projects' configs reach this package's, and in stock MMEngine they do not."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.config import config as config_module

from mmn_plugin.config import load_config
from mmn_plugin.datasets import single_configs
from mmn_plugin.files import config_root

STOCK_PATH = Config._get_cfg_path.__wrapped__
READ_BASE = """
from mmengine.config import read_base

with read_base():
    from mmn_plugin.configs.mmn_tacos import *

model.update(head=dict(top_n=9))
train_dataloader.merge(dict(batch_size=7, dataset=dict(ann_file='mine.json')))
"""


def test_stock_mmengine_cannot_inherit_our_configs(tmp_path, monkeypatch):
    for name in ('mmn_plugin::mmn_tacos.py', 'mmn_plugin::_base_/default_runtime.py'):
        with pytest.raises((ValueError, AssertionError)):
            STOCK_PATH(name, 'downstream.py')
    (tmp_path / 'own.py').write_text(READ_BASE)
    stock = config_module.get_installed_path.__wrapped__
    monkeypatch.setattr(config_module, 'get_installed_path', stock)
    with pytest.raises(Exception, match=r'mmn_tacos|mmn_plugin'):
        Config.fromfile(tmp_path / 'own.py')


def test_base_with_our_prefix_is_our_config_also_in_parts_and_in_a_list(tmp_path):
    (tmp_path / 'own.py').write_text(
        "_base_ = ['mmn_plugin::mmn_tacos.py', 'mine.py']\n"
        'model = dict(head=dict(top_n=9))\n'
        'taken = _base_.model\n'
    )
    (tmp_path / 'mine.py').write_text('mine = 1\n')
    config = Config.fromfile(tmp_path / 'own.py')
    ours = Config.fromfile(config_root() / 'mmn_tacos.py')
    assert '_scope_' not in str(config._cfg_dict.to_dict())
    assert (config.mine, config.taken) == (1, ours.model)
    assert config.model.head.pop('top_n') == 9
    ours.model.head.pop('top_n')
    assert {**config, 'taken': None, 'mine': None} == {**ours, 'taken': None, 'mine': None}
    assert Config.fromfile('mmn_plugin::_base_/default_runtime.py').default_scope == 'mmaction'


def test_no_config_chooses_the_best_epoch_on_its_test_split():
    choosing = {}
    for path in config_root().glob('m*.py'):
        config = Config.fromfile(path)
        splits = [
            {Path(part.data_root, part.ann_file) for part in single_configs(loader.dataset)}
            for loader in (config.val_dataloader, config.test_dataloader)
        ]
        best = config.default_hooks.checkpoint.save_best
        choosing[path.stem] = bool(splits[0] & splits[1]), best
    on_test = {name for name, (shared, _) in choosing.items() if shared}
    assert {'mmn_charades', 'mscl_charades', 'mmn_hcstvg'} <= on_test
    assert 'mmn_joint' not in on_test
    assert {name for name, (_, best) in choosing.items() if not best} == on_test


def test_every_config_copies_from_pinned_memory_and_has_the_constructor_of_few_groups():
    for path in config_root().glob('m*.py'):
        config = Config.fromfile(path)
        for split in ('train', 'val', 'test'):
            loader = config[f'{split}_dataloader']
            assert (loader.pin_memory, loader.persistent_workers) == (True, True), path
        assert config.model.data_preprocessor.get('non_blocking', True)
        assert config.optim_wrapper.constructor == 'GroupedOptimWrapperConstructor'


def test_the_suffix_of_an_own_config_may_be_left_out():
    whole = load_config('mmn_tacos.py')
    for name in ('mmn_tacos', 'mmn_plugin::mmn_tacos'):
        assert load_config(name).to_dict() == whole.to_dict()


def test_unknown_name_lists_the_configs_and_other_packages_are_left_to_mmengine():
    with pytest.raises(FileNotFoundError, match=r"'no\.py'.*mmn_charades\.py.*mmn_tacos\.py"):
        Config.fromfile('mmn_plugin::no.py')
    name = 'mmaction::_base_/default_runtime.py'
    path, scope = Config._get_cfg_path(name, 'x.py')
    assert (path, scope) == STOCK_PATH(name, 'x.py')
    assert scope == 'mmaction'


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
