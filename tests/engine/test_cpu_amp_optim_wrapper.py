"""Mixed precision on the CPU, and that stock MMEngine has none."""

import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from torch import nn

from mmn_plugin.engine import CPUAmpOptimWrapper


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
