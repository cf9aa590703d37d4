"""The config of a checkpoint is read, and never run."""

import pytest
from mmengine.config import Config

from mmn_plugin.engine import checkpoint_config


def read(text):
    return checkpoint_config(dict(meta=dict(cfg=text)), 'a.pth')


@pytest.mark.parametrize('name', ['mmn_shapes.py', 'mmn_tacos.py', 'mmn_activitynet.py'])
def test_the_text_that_mmengine_stores_gives_the_same_config(name):
    config = Config.fromfile(f'mmn_plugin::{name}')
    assert read(config.pretty_text)._cfg_dict.to_dict() == config._cfg_dict.to_dict()


def test_literals_and_dicts_are_understood():
    config = read("a = dict(b=[-1, (2., 'x')], **{'c d': None})\ne = {1: inf}\n")
    assert config.a.b == [-1, (2.0, 'x')]
    assert config.a['c d'] is None
    assert config.e == {1: float('inf')}


FOREIGN = """import os
a = open('x', 'w')
a = [c for c in (1,)]
a = __import__("os")
a = (
a = dict([('b', 1)])
a, b = 1, 2
a = b
a += 1
print(1)
a.b = 1"""
IMPORTING = """model = dict(type='os.system', command='x')
a = [dict(b=dict(type='mmn.MMN'))]
a = dict(_scope_='foreign', type='MMN')
a = dict(type=['MMN'])"""


@pytest.mark.parametrize('text', [*FOREIGN.splitlines(), *IMPORTING.splitlines()])
def test_what_could_run_foreign_code_is_refused(text):
    with pytest.raises(
        ValueError, match=r'a\.pth carries (is more than plain|asks for).*foreign code'
    ):
        read(text)


@pytest.mark.parametrize('meta', [{}, dict(cfg=''), dict(cfg=None)])
def test_a_checkpoint_without_config_says_so(meta):
    with pytest.raises(ValueError, match=r'a\.pth carries no config: give the one'):
        checkpoint_config(dict(meta=meta), 'a.pth')


def test_foreign_modules_are_not_imported():
    text = "custom_imports = dict(imports=['mmn_plugin.shapes', 'absent_module', 'mmn_plugin_x'])\n"
    assert 'absent_module' in read(text).custom_imports.imports
