"""A loss that is no number stops training, or its batch is left out."""
import logging
from types import SimpleNamespace

import pytest
import torch
from helpers.random_candidates import random_candidates
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils._pytree import tree_map_only

from mmn_plugin.engine.hooks import CheckLossHook, CrossVideoNegativeHook

aten = torch.ops.aten
NAN, INF = float('nan'), float('inf')


class Model(BaseModel):
    """BatchNorm in front, as in the neck: its statistics see the batch before the loss does."""

    def __init__(self):
        super().__init__()
        self.negatives = None
        self.norm, self.layer = nn.BatchNorm1d(2), nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        if self.negatives is not None:  # as the head does
            self.negatives.collect(random_candidates([1, 1], [s.video_id for s in data_samples]))
        return dict(loss_a=self.layer(self.norm(inputs)).square().mean(), loss_b=inputs.sum() * 0)


class Run:
    """A runner of just what the hook looks at."""

    def __init__(self, counts=1, checked=True, **hook):
        torch.manual_seed(0)
        self.epoch, self.model = 2, Model()
        self.optim_wrapper = OptimWrapper(
            torch.optim.AdamW(self.model.parameters(), lr=0.1), accumulative_counts=counts)
        self.hook, self.said, self.more_hooks = CheckLossHook(**hook), [], []
        self.logger = logging.Logger('run')
        self.logger.addHandler(SimpleNamespace(
            level=0, handle=lambda record: self.said.append(record.getMessage())))
        if checked:
            self.hook.before_train(self)

    def call_hook(self, name):
        self.said.append(name)
        for hook in self.more_hooks:
            getattr(hook, name)(self)

    def step(self, index, value=1.):
        samples = [SimpleNamespace(video_id=f'v{index}'), SimpleNamespace(video_id='w')]
        batch = dict(inputs=torch.tensor([[1., 2.], [3., index + value]]), data_samples=samples)
        self.hook.before_train_iter(self, index, batch)
        outputs = self.model.train_step(batch, self.optim_wrapper)
        self.hook.after_train_iter(self, index, batch, outputs)
        return outputs

    def state(self):
        return [v.clone() for v in self.model.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_finite_loss_trains_as_without_the_hook():
    checked, unchecked = Run(), Run(checked=False)
    outputs = [run.step(index) for run in (checked, unchecked) for index in (0, 1)]
    assert [output['loss'] for output in outputs[:2]] == [o['loss'] for o in outputs[2:]]
    assert same(checked.state(), unchecked.state())
    assert not same(checked.state(), Run().state())
    assert checked.said == []


@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_it_stops_before_the_weights_are_spoilt(value):
    run = Run()
    run.step(0)
    weights = [p.detach().clone() for p in run.model.parameters()]
    place = r'loss=nan, .* at epoch 3, iteration 8, in the batch of videos v7, w\.'
    with pytest.raises(FloatingPointError, match=place):
        run.step(7, value)
    assert same(weights, [p.detach() for p in run.model.parameters()])


def test_a_skipped_batch_leaves_no_trace():
    with_bad, without = Run(action='skip'), Run()
    for index in (0, 1, 2):
        if index == 1:
            before = with_bad.state()
            assert with_bad.step(index, NAN) == {}
            assert same(before, with_bad.state())
        else:
            with_bad.step(index)
            without.step(index)
    assert same(with_bad.state(), without.state())
    assert with_bad.optim_wrapper.inner_count == 3
    assert with_bad.hook.skips == 1
    assert 'iteration skipped (1 of at most 100): rank 0: ' in with_bad.said[0]
    assert 'videos v1, w' in with_bad.said[0]
    assert with_bad.said[1:] == ['iteration_skipped']


def test_a_skipped_batch_drops_its_window_of_accumulation():
    run = Run(counts=2, action='skip')
    before = run.state()
    run.step(0)
    run.step(1, NAN)  # the window's second batch: neither is stepped
    assert same(before[:2], run.state()[:2])
    assert all(p.grad is None for p in run.model.parameters())
    run.step(2)
    run.step(3)
    assert not same(before[:2], run.state()[:2])


def test_a_skipped_batch_stays_out_of_the_memory_bank():
    run, negatives = Run(action='skip'), CrossVideoNegativeHook(1, queue_size=8)
    run.more_hooks, run.model.negatives = [negatives], negatives.source
    run.step(0)
    run.step(1, NAN)
    negatives.source.settle()
    bank = negatives.source.bank
    before = bank.state_dict()
    assert before['video_ids'] == ['v0', 'w']
    run.step(2, NAN)
    negatives.source.settle()
    for name, value in bank.state_dict().items():
        assert torch.equal(value, before[name]) if torch.is_tensor(value) else (
            value == before[name])
    run.step(3)
    negatives.source.settle()
    assert bank.state_dict()['video_ids'] == ['v0', 'w', 'v3', 'w']


def test_too_many_skips_stop_also_after_a_resume():
    run = Run(action='skip', max_skips=2)
    run.step(0, NAN)
    resumed = Run(action='skip', max_skips=2)
    resumed.hook.load_rank_state(run.hook.rank_state())
    resumed.step(1, NAN)
    with pytest.raises(FloatingPointError, match=r'the 2 iterations that max_skips allows .*v2, w'):
        resumed.step(2, NAN)


class AwayTensor(torch.Tensor):
    """Stands in for a tensor on a GPU, and counts how often its values are asked for."""

    asked = 0

    @staticmethod
    def __new__(cls, values):
        away = torch.Tensor._make_wrapper_subclass(
            cls, values.shape, dtype=values.dtype, device='meta')
        away.values_there = values
        return away

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(cls, lambda away: away.values_there, (args, kwargs or {}))
        to_host = func is aten._to_copy.default and kwargs['device'].type == 'cpu'
        cls.asked += to_host or func is aten._local_scalar_dense.default
        result = func(*args, **kwargs)
        return result if to_host else tree_map_only(torch.Tensor, cls, result)


@pytest.mark.parametrize('value', [1., NAN])
def test_one_copy_of_the_losses_serves_the_check_and_the_log(value, monkeypatch):
    monkeypatch.setattr(AwayTensor, 'asked', 0)
    run = Run(action='skip')
    run.message_hub = MessageHub(f'asked {value}')
    batch = dict(data_samples=[SimpleNamespace(video_id='v')])
    run.hook.before_train_iter(run, 0, batch)
    losses = dict(loss_a=AwayTensor(torch.tensor(1.)), loss_b=AwayTensor(torch.tensor(value)))
    _, outputs = run.model.parse_losses(losses)
    run.hook.after_train_iter(run, 0, batch, outputs)
    RuntimeInfoHook().after_train_iter(run, 0, batch, outputs)
    assert AwayTensor.asked == 1
    logged = {name: buffer.current() for name, buffer in run.message_hub.log_scalars.items()}
    expected = {'train/loss': 2., 'train/loss_a': 1., 'train/loss_b': 1.} if value == 1. else {}
    assert logged == expected


def test_losses_that_no_check_saw_are_looked_at_after_the_step():
    run = Run(checked=False)
    with pytest.raises(FloatingPointError, match='videos v7, w'):
        run.step(7, NAN)


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'stop' or 'skip', not 'ignore'"):
        CheckLossHook(action='ignore')
