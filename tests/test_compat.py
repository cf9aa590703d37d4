"""Each cure of mmn_plugin.compat, and that the stock releases need it."""

import http.server
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import checkpoint as checkpoint_module
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmn_plugin import compat
from mmn_plugin.engine.runner import CPUAmpOptimWrapper
from mmn_plugin.paths import config_root

ROOT = Path(__file__).resolve().parents[1]
MMACTION = Path(importlib.util.find_spec('mmaction').origin).parent
load = CheckpointLoader.load_checkpoint

# ---- importing mmaction.models


def python(code, *paths, without=''):
    """Run code in a fresh process, with some cures left out."""
    path = os.pathsep.join(map(str, [*paths, ROOT]))
    environment = {**os.environ, 'PYTHONPATH': path, 'MMN_PLUGIN_WITHOUT': without}
    return subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=120
    )


def test_models_import_without_a_word():
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'for name in ("DRN", "VindLUVQA", "VindLURetrieval"):\n'
        '    try: MODELS.build(dict(type=name))\n'
        '    except ImportError as error: print(error)\n'
        'assert MODELS.get("BMN").__module__ == "mmaction.models.localizers.bmn"\n'
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert 'DRN is not available: the MMAction2 wheel' in done.stdout
    assert 'VindLUVQA is not available: VindLU cannot be imported' in done.stdout


@pytest.mark.skipif((MMACTION / 'models/localizers/drn').is_dir(), reason='MMAction2 has its DRN')
def test_stock_release_lacks_drn():
    done = python('import mmn_plugin, mmaction.models', without='stand_in_for_drn')
    assert 'mmaction.models.localizers.drn' in done.stderr
    assert done.returncode == 1


@pytest.mark.skipif(importlib.util.find_spec('timm') is not None, reason='timm is installed')
def test_stock_release_cannot_import_vindlu():
    code = 'import mmn_plugin, mmaction.models'
    done = python(code, without='stand_in_for_vindlu,quiet_known_warnings')
    assert 'vindlu' in done.stderr
    assert 'UserWarning: Fail to import ``MultiScaleDeformableAttention``' in done.stderr
    assert done.returncode == 1


def other_mmaction(folder, vindlu):
    """The installed MMAction2 with a DRN, and with the given source for VindLU."""
    copy = folder / 'mmaction'
    shutil.copytree(MMACTION, copy, ignore=shutil.ignore_patterns('.mim', '__pycache__', 'vindlu'))
    for name, text in (
        ('localizers/drn/__init__.py', ''),
        ('localizers/drn/drn.py', REGISTERED.format('DRN')),
        ('multimodal/vindlu/__init__.py', vindlu),
    ):
        path = copy / 'models' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


REGISTERED = (
    'from mmaction.registry import MODELS\n@MODELS.register_module()\nclass {}:\n    real = True\n'
)


def test_real_drn_and_vindlu_stay(tmp_path):
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'assert MODELS.get("DRN").real and MODELS.get("VindLUVQA").real\n'
        'assert MODELS.get("VindLURetrieval") is None\n',
        other_mmaction(tmp_path, REGISTERED.format('VindLUVQA')),
    )
    assert done.returncode == 0, done.stderr


def test_half_imported_vindlu_is_undone(tmp_path):
    # timm is there, but a name is gone from transformers after the first class was registered
    broken = REGISTERED.format('VindLURetrieval') + 'from transformers import gone_since_5\n'
    done = python(
        'import mmn_plugin, mmaction.models\n'
        'from mmaction.registry import MODELS\n'
        'assert not hasattr(MODELS.get("VindLURetrieval"), "real")\n'
        'MODELS.build(dict(type="VindLURetrieval"))\n',
        other_mmaction(tmp_path, broken),
    )
    assert done.stderr.splitlines()[-1].startswith('ImportError: VindLURetrieval is not available')
    assert 'gone_since_5' in done.stderr


def test_missing_mmcv_is_said_plainly(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install "mmcv-lite'):
        compat.require_mmcv()


# ---- checkpoints


def checkpoint():
    """What an MMEngine checkpoint holds beside tensors."""
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    numbers = {code: np.arange(3).astype(code) for code in ('f4', 'f8', 'i4', 'i8', 'u4', '?')}
    return {'history': history, 'best': np.float64(0.5), 'numbers': numbers}


def test_stock_torch_refuses_mmengine_checkpoints(tmp_path):
    torch.save(checkpoint(), tmp_path / 'a.pth')
    kept = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
            torch.load(tmp_path / 'a.pth', weights_only=True)
    finally:
        torch.serialization.add_safe_globals(kept)


def test_mmengine_checkpoints_load_with_the_protection_on(tmp_path):
    expected = checkpoint()
    torch.save(expected, tmp_path / 'a.pth')
    torch.load(tmp_path / 'a.pth', weights_only=True)
    loaded = load(str(tmp_path / 'a.pth'))
    assert loaded['history'].mean() == 2.0
    assert loaded['history'].statistics('max') == 3.0
    assert loaded['best'] == 0.5
    for code, values in expected['numbers'].items():
        np.testing.assert_array_equal(loaded['numbers'][code], values)
        assert loaded['numbers'][code].dtype == values.dtype


class Foreign:
    ran = False

    def __setstate__(self, state):
        Foreign.ran = True


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (Calls(os.getcwd), 'posix.getcwd'),
        (Calls(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Calls(getattr, np.ndarray, 'tofile'), 'getattr'),
        (Calls(eval, '1'), 'eval'),
    ],
)
def test_pickles_that_call_are_refused(tmp_path, content, named):
    path = str(tmp_path / 'a.pth')
    torch.save({'state_dict': {}, 'extra': content}, path)
    with pytest.raises(pickle.UnpicklingError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(path)
    assert named in message
    assert len(message.splitlines()) == 1


def test_downloaded_checkpoints_are_protected_too(tmp_path, monkeypatch):
    foreign = Foreign()
    foreign.value = 1
    torch.save({'state_dict': {}, 'extra': foreign}, tmp_path / 'foreign.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/foreign.pth'
        with pytest.raises(pickle.UnpicklingError, match='Foreign'):
            load(url)
        assert not Foreign.ran
        checkpoint_module.load_url.func(url)  # what mmengine calls without the cure
        assert Foreign.ran
        server.shutdown()


def test_running_out_of_memory_is_not_called_a_bad_checkpoint(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise RuntimeError('CUDA out of memory')

    torch.save({}, tmp_path / 'a.pth')
    monkeypatch.setattr(torch, 'load', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        load(str(tmp_path / 'a.pth'))


# ---- configs

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


# ---- mixed precision on the CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason='AmpOptimWrapper works on this machine')
def test_stock_mixed_precision_refuses_the_cpu():
    layer = nn.Linear(2, 1)
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1))


def test_cpu_mixed_precision_computes_in_bfloat16_and_updates_in_float32():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1))
    with wrapper.optim_context(layer):
        output = layer(torch.ones(3, 2))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(before - layer.weight.detach(), torch.full((1, 2), 0.3))
    assert layer(torch.ones(3, 2)).dtype == torch.float32
