"""The config of a checkpoint is data, and brings no foreign code."""

import pytest
from mmengine.config import Config

from mmn_plugin.engine import checkpoint_config


def read(**config):
    return checkpoint_config(dict(meta=dict(settings=config)), 'a.pth')


@pytest.mark.parametrize('name', ['mmn_shapes.py', 'mmn_tacos.py', 'mmn_activitynet.py'])
def test_what_a_checkpoint_stores_gives_the_same_config(name):
    config = Config.fromfile(f'mmn_plugin::{name}').to_dict()
    assert read(**config).to_dict() == config


@pytest.mark.parametrize(
    'part',
    [
        dict(type='os.system', command='x'),
        [dict(b=dict(type='mmn.MMN'))],
        dict(_scope_='foreign', type='MMN'),
        dict(type=['MMN']),
    ],
)
def test_what_would_import_foreign_code_is_refused(part):
    with pytest.raises(ValueError, match=r'a\.pth carries asks for .*could import foreign code'):
        read(model=part)


@pytest.mark.parametrize('meta', [{}, dict(settings={}), dict(settings='import os')])
def test_a_checkpoint_without_config_says_so(meta):
    with pytest.raises(ValueError, match=r'a\.pth carries no config: give the one'):
        checkpoint_config(dict(meta=meta), 'a.pth')


def test_foreign_modules_are_not_imported():
    imports = ['mmn_plugin.shapes', 'absent_module', 'mmn_plugin_x']
    assert read(custom_imports=dict(imports=imports)).custom_imports.imports == imports
