"""Which precision --amp and the loops choose."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import AmpOptimWrapper
from mmengine.structures import BaseDataElement
from torch import nn

from mmn_plugin.cli.command_line import explicit_amp
from mmn_plugin.engine import (
    AmpTestLoop,
    AmpValLoop,
    CPUAmpOptimWrapper,
    apply_amp,
    apply_test_amp,
)
from mmn_plugin.engine import amp as amp_module


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
    assert wrapper('auto') == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    assert wrapper('auto', dtype='bfloat16')['dtype'] == 'bfloat16'
    assert wrapper('fp16', loss_scale=8.0) == dict(
        type='AmpOptimWrapper', loss_scale=8.0, dtype='float16'
    )
    assert wrapper('bf16', loss_scale=8.0) == dict(
        type='AmpOptimWrapper', loss_scale=dict(enabled=False), dtype='bfloat16'
    )


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
    evaluator = Evaluator([])
    before = torch.get_autocast_dtype(device)
    expected = (
        dict(auto=torch.bfloat16, bf16=torch.bfloat16)
        if device == 'cpu'
        else dict(auto=torch.float16, bf16=torch.bfloat16, fp16=torch.float16)
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of torch, that there is no GPU
        for amp in expected:
            loop_type(recorder, loader, evaluator, amp=amp).run_iter(0, [])
    assert recorder.seen == list(expected.values())
    assert torch.get_autocast_dtype(device) == before
    with pytest.raises(ValueError, match="bf16 or fp16, not 'half'"):
        loop_type(recorder, loader, evaluator, amp='half')


def test_a_loop_of_ones_own_is_not_replaced(device):
    with pytest.raises(ValueError, match=r"cannot replace test_cfg\.type 'Own'"):
        apply_test_amp(Config(dict(test_cfg=dict(type='Own'))))
    config = Config(dict(test_cfg=dict(type='TestLoop', fp16=True)))
    apply_test_amp(config, 'bf16')
    assert config.test_cfg.to_dict() == dict(type='AmpTestLoop', amp='bf16')


def test_a_bare_amp_leaves_the_next_argument_alone():
    assert explicit_amp(['--amp', 'config.py', '--amp', 'bf16', '--amp']) == [
        '--amp=auto',
        'config.py',
        '--amp',
        'bf16',
        '--amp=auto',
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason='AmpOptimWrapper works on this machine')
def test_stock_mixed_precision_refuses_the_cpu():
    layer = nn.Linear(2, 1)
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper(optimizer=torch.optim.SGD(layer.parameters(), lr=0.1))


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
