"""Whether float32 is float32 on a GPU, decided in one place."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_grounder import write_grounder
from mmaction.registry import HOOKS
from mmengine.config import Config

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.features import extractor_config
from mmn_plugin.precision import apply_tf32, set_tf32, tf32_allowed

cuda, cudnn = torch.backends.cuda, torch.backends.cudnn


@pytest.fixture(autouse=True)
def _pytorch_default():
    before = tf32_allowed()
    set_tf32(False, True)
    yield
    set_tf32(*before)


@pytest.mark.parametrize('settings', [(False, False), (True, True), (False, True)])
def test_old_and_new_names_agree(settings):
    set_tf32(*settings)
    assert tf32_allowed() == (cuda.matmul.allow_tf32, cudnn.allow_tf32) == settings


@pytest.mark.skipif(not hasattr(cudnn, 'conv'), reason='PyTorch has no new names before 2.9')
def test_it_is_set_whatever_names_were_used_before():
    cuda.matmul.fp32_precision = cudnn.conv.fp32_precision = 'tf32'
    set_tf32(False, True)
    cuda.matmul.fp32_precision, cudnn.conv.fp32_precision = 'tf32', 'ieee'
    with pytest.raises(RuntimeError):  # PyTorch's answer to the mixture
        _ = cudnn.allow_tf32
    assert tf32_allowed() == (True, False)
    set_tf32(False, False)
    assert tf32_allowed() == (cuda.matmul.allow_tf32, cudnn.allow_tf32) == (False, False)


def test_an_older_pytorch_has_the_old_names_alone(monkeypatch):
    old = SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
        cudnn=SimpleNamespace(allow_tf32=True),
    )
    monkeypatch.setattr(torch, 'backends', old)
    assert tf32_allowed() == (False, True)
    set_tf32(True, False)
    assert tf32_allowed() == (True, False)
    assert vars(old.cudnn) == dict(allow_tf32=False)
    assert vars(old.cuda.matmul) == dict(allow_tf32=True)


@pytest.mark.parametrize('name', ['mmn_charades', 'mscl_charades', 'mmn_hcstvg', 'mmn_shapes'])
def test_runs_of_all_methods_are_exact_unless_their_config_says_otherwise(name):
    config = Config.fromfile(f'mmn_plugin::{name}.py')
    hook = HOOKS.build(config.default_hooks.start)
    hook.before_run(SimpleNamespace(cfg=config))
    assert tf32_allowed() == (False, False)
    config.env_cfg.allow_tf32 = True
    hook.before_run(SimpleNamespace(cfg=config))
    assert tf32_allowed() == (True, True)


def test_a_config_without_the_setting_is_exact():
    apply_tf32(Config(dict(env_cfg=None)))
    assert tf32_allowed() == (False, False)


def test_another_value_is_refused():
    with pytest.raises(ValueError, match=r"env_cfg\.allow_tf32='yes'; give True or False"):
        apply_tf32(Config(dict(env_cfg=dict(allow_tf32='yes'))))


@pytest.mark.parametrize('allowed', [False, True])
def test_loaded_models_and_extractors_obey_their_config(tmp_path, allowed):
    made = write_grounder(tmp_path)
    config = Config.fromfile(made.config)
    config.env_cfg.allow_tf32 = allowed
    load_model(config, made.checkpoint, 'cpu')
    assert tf32_allowed() == (allowed, allowed)
    set_tf32(False, True)
    extractor_config(str(made.config), {'env_cfg.allow_tf32': allowed})
    assert tf32_allowed() == (allowed, allowed)
