"""Which precision --amp and the loops choose, and whether float32 is float32 on a GPU."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_grounder import write_grounder
from mmaction.registry import HOOKS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement
from torch import nn

from mmn_plugin.apis.pretrained import load_model
from mmn_plugin.cli.main import explicit_amp
from mmn_plugin.config import apply_tf32, set_tf32
from mmn_plugin.engine import (
    AmpTestLoop,
    AmpValLoop,
    CPUAmpOptimWrapper,
    apply_amp,
    apply_test_amp,
)
from mmn_plugin.engine import amp as amp_module
from mmn_plugin.features import extractor_config

cuda, cudnn = torch.backends.cuda, torch.backends.cudnn


@pytest.fixture(params=['cpu', 'cuda'])
def device(request, monkeypatch):
    """What MMEngine says the device is; no GPU is used."""
    monkeypatch.setattr(amp_module, 'get_device', lambda: request.param)
    monkeypatch.setattr('mmengine.runner.amp.get_device', lambda: request.param)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *_: True)
    return request.param


def wrapper(amp, **settings):
    config = Config(dict(optim_wrapper=dict(type='OptimWrapper', **settings)))
    apply_amp(config, amp)
    return config.optim_wrapper.to_dict()


def test_training_takes_the_precision_that_was_asked_for(device):
    if device == 'cpu':
        assert wrapper('auto') == wrapper('bf16') == dict(type='CPUAmpOptimWrapper')
        with pytest.raises(ValueError, match='fp16 needs a GPU'):
            wrapper('fp16')
        return
    kind = dict(type='AmpOptimWrapper')
    assert wrapper('auto') == kind | dict(loss_scale='dynamic')
    assert wrapper('auto', dtype='bfloat16')['dtype'] == 'bfloat16'
    assert wrapper('fp16', loss_scale=8.0) == kind | dict(loss_scale=8.0, dtype='float16')
    unscaled = dict(loss_scale=dict(enabled=False), dtype='bfloat16')
    assert wrapper('bf16', loss_scale=8.0) == kind | unscaled


class Recorder:
    """In the place of a runner: notes the precision a batch is computed in."""

    visualizer = SimpleNamespace()

    def __init__(self, device):
        self.device, self.model, self.seen = device, self, []

    def call_hook(self, *args, **kwargs):
        pass

    def test_step(self, data_batch):
        self.seen.append(torch.get_autocast_dtype(self.device))
        if self.device == 'cpu':
            assert torch.is_autocast_enabled('cpu')
        return [BaseDataElement()]

    val_step = test_step


@pytest.mark.parametrize('loop_type', [AmpTestLoop, AmpValLoop])
def test_loops_compute_in_the_precision_that_was_asked_for(device, loop_type):
    recorder, loader = Recorder(device), SimpleNamespace(dataset=SimpleNamespace(metainfo={}))
    given, before = (recorder, loader, Evaluator([])), torch.get_autocast_dtype(device)
    expected = dict(auto=torch.bfloat16, bf16=torch.bfloat16)
    if device == 'cuda':
        expected |= dict(auto=torch.float16, fp16=torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch, that there is no GPU
        for amp in expected:
            loop_type(*given, amp=amp).run_iter(0, [])
    assert recorder.seen == list(expected.values())
    assert torch.get_autocast_dtype(device) == before
    with pytest.raises(ValueError, match="bf16 or fp16, not 'half'"):
        loop_type(*given, amp='half')


def test_a_loop_of_ones_own_is_not_replaced(device):
    with pytest.raises(ValueError, match=r"cannot replace test_cfg\.type 'Own'"):
        apply_test_amp(Config(dict(test_cfg=dict(type='Own'))))
    config = Config(dict(test_cfg=dict(type='TestLoop', fp16=True)))
    apply_test_amp(config, 'bf16')
    assert config.test_cfg.to_dict() == dict(type='AmpTestLoop', amp='bf16')


def test_a_bare_amp_leaves_the_next_argument_alone():
    given = ['--amp', 'config.py', '--amp', 'bf16', '--amp']
    assert explicit_amp(given) == ['--amp=auto', 'config.py', '--amp', 'bf16', '--amp=auto']


def test_cpu_mixed_precision_computes_in_bfloat16_and_updates_in_float32():
    layer = nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimizer = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1))
    with optimizer.optim_context(layer):
        output = layer(torch.ones(3, 2))
    assert output.dtype == torch.bfloat16
    optimizer.update_params(output.float().sum())
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(before - layer.weight.detach(), torch.full((1, 2), 0.3))
    assert layer(torch.ones(3, 2)).dtype == torch.float32


def tf32():
    return cuda.matmul.allow_tf32, cudnn.allow_tf32


@pytest.fixture
def allowed_before():
    """TF32 is allowed before, and forbidden after."""
    set_tf32(True)
    yield
    set_tf32(False)


@pytest.mark.skipif(not hasattr(cudnn, 'conv'), reason='PyTorch has no new names before 2.9')
def test_tf32_is_set_whatever_names_were_used_before(allowed_before):
    for allowed in (False, True):
        cuda.matmul.fp32_precision = cudnn.rnn.fp32_precision = 'tf32'
        cudnn.conv.fp32_precision = 'ieee'
        with pytest.raises(RuntimeError):  # PyTorch's answer to a mixture
            tf32()
        set_tf32(allowed)
        assert tf32() == (allowed, allowed)


def test_an_older_pytorch_has_the_old_names_alone(monkeypatch):
    old = SimpleNamespace(
        cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)),
        cudnn=SimpleNamespace(allow_tf32=False),
    )
    monkeypatch.setattr(torch, 'backends', old)
    set_tf32(True)
    assert vars(old.cudnn) == vars(old.cuda.matmul) == dict(allow_tf32=True)


@pytest.mark.parametrize('name', ['mmn_charades', 'mscl_charades', 'mmn_hcstvg', 'mmn_shapes'])
def test_runs_of_all_methods_are_exact_unless_their_config_says_otherwise(allowed_before, name):
    config = Config.fromfile(f'mmn_plugin::{name}.py')
    hook = HOOKS.build(config.default_hooks.start)
    for allowed in (False, True):
        hook.before_run(SimpleNamespace(cfg=config))
        assert tf32() == (allowed, allowed)
        config.env_cfg.allow_tf32 = True
    apply_tf32(Config(dict(env_cfg=None)))
    assert tf32() == (False, False)
    with pytest.raises(ValueError, match=r"env_cfg\.allow_tf32='yes'; give True or False"):
        apply_tf32(Config(dict(env_cfg=dict(allow_tf32='yes'))))


@pytest.mark.parametrize('allowed', [False, True])
def test_loaded_models_and_extractors_obey_their_config(allowed_before, tmp_path, allowed):
    made = write_grounder(tmp_path)
    config = Config.fromfile(made.config)
    config.env_cfg.allow_tf32 = allowed
    load_model(config, made.checkpoint, 'cpu')
    assert tf32() == (allowed, allowed)
    set_tf32(not allowed)
    extractor_config(str(made.config), {'env_cfg.allow_tf32': allowed})
    assert tf32() == (allowed, allowed)
