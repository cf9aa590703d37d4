"""What processes of a training share, and what each keeps."""

from types import SimpleNamespace

import torch
from torch import nn

from mmn_plugin.engine import dist


def test_the_model_is_found_with_and_without_a_wrapper():
    model = nn.Linear(2, 2)
    for given in (model, nn.DataParallel(model)):
        assert dist.bare_model(SimpleNamespace(model=given)) is model


def test_only_batchnorms_statistics_are_broadcast(monkeypatch):
    sent = []
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)
    monkeypatch.setattr(dist, 'broadcast', lambda buffer, src: sent.append((buffer, src)))
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2))
    model.register_buffer('bank', torch.zeros(3), persistent=False)
    dist.broadcast_statistics(model)
    norm = model[1]
    expected = [norm.running_mean, norm.running_var, norm.num_batches_tracked]
    assert [(id(buffer), src) for buffer, src in sent] == [(id(buffer), 0) for buffer in expected]


def test_buffers_that_no_checkpoint_holds_are_no_persistent_ones():
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(2))
    model[0].register_buffer('bank', torch.zeros(3), persistent=False)
    model[0].register_buffer('absent', None)
    names = [name for name, _ in dist.persistent_buffers(model)]
    assert names == ['1.running_mean', '1.running_var', '1.num_batches_tracked']
    assert set(names) == set(model.state_dict()) - dict(model.named_parameters()).keys()
