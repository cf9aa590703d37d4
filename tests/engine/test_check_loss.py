"""A loss or gradient that is no number stops training, or its batch is left out."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.random_candidates import random_candidates
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmn_plugin.engine import LossCheck, PreemptionHook, loss_check
from mmn_plugin.engine import preemption as preemption_hook
from mmn_plugin.engine.preemption import Preempted
from mmn_plugin.models import BaseLocalizer, NegativeSource

aten = torch.ops.aten
NAN, INF = float('nan'), float('inf')


class Model(BaseLocalizer):
    """BatchNorm in front, as in the neck: its statistics see the batch before the loss does."""

    def __init__(self):
        super().__init__()
        self.negatives: nn.Module | None = None
        self.bad_gradient = None
        self.norm, self.layer = nn.BatchNorm1d(2), nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        if self.negatives is not None:  # as the head does
            self.negatives.collect(random_candidates([1, 1], [s.video_id for s in data_samples]))
        weight = self.layer.weight.sum()
        zero = dict(nan=weight * 0, inf=weight - weight.detach()).get(self.bad_gradient)
        return dict(
            loss_a=self.layer(self.norm(inputs)).square().mean(),
            loss_b=inputs.sum() * 0,
            loss_c=inputs.sum() * 0 if zero is None else zero.sqrt(),
        )


class Run:
    """A runner of just what the check looks at."""

    def __init__(
        self, counts=1, checked=True, clip=None, wrapper=OptimWrapper, device='cpu', **settings
    ):
        torch.manual_seed(0)
        self.epoch, self.model = 2, Model().to(device)
        self.message_hub = MessageHub(f'run {id(self)}')
        self.optim_wrapper = wrapper(
            optimizer=torch.optim.AdamW(self.model.parameters(), lr=0.1),
            accumulative_counts=counts,
            clip_grad=clip,
        )
        self.optim_wrapper.message_hub = self.message_hub
        self.check, self.checked, self.said = LossCheck(**settings), checked, []
        self.logger = logging.Logger('run')
        self.logger.addHandler(
            SimpleNamespace(level=0, handle=lambda record: self.said.append(record.getMessage()))
        )
        if checked:
            self.check.prepare(self)

    def step(self, index, value=1.0, bad_gradient=None):
        self.model.bad_gradient = bad_gradient
        samples = [SimpleNamespace(video_id=f'v{index}'), SimpleNamespace(video_id='w')]
        inputs = torch.tensor(
            [[1.0, 2.0], [3.0, index + value]], device=self.model.norm.weight.device
        )
        batch = dict(inputs=inputs, data_samples=samples)
        if not self.checked:
            return self.model.train_step(batch, self.optim_wrapper)
        outputs = self.check.train_step(self, index, batch)
        if self.check.skipped and self.model.negatives is not None:  # as the loop does
            self.model.negatives.forget_iteration()
        return outputs

    def state(self):
        return [v.clone() for v in self.model.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_finite_loss_trains_as_without_the_check():
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
    assert with_bad.check.skips == 1
    assert 'iteration skipped (1 of at most 100): rank 0: ' in with_bad.said[0]
    assert 'videos v1, w' in with_bad.said[0]


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
    run = Run(action='skip')
    source = run.model.negatives = NegativeSource(queue_size=8)
    run.step(0)
    run.step(1, NAN)
    source.settle()
    bank = source.bank
    before = bank.state()
    assert before['video_ids'] == ['v0', 'w']
    run.step(2, NAN)
    source.settle()
    for name, value in bank.state().items():
        assert (
            torch.equal(value, before[name]) if torch.is_tensor(value) else (value == before[name])
        )
    run.step(3)
    source.settle()
    assert bank.state()['video_ids'] == ['v0', 'w', 'v3', 'w']


def test_too_many_skips_stop_also_after_a_resume():
    run = Run(action='skip', max_skips=2)
    run.step(0, NAN)
    resumed = Run(action='skip', max_skips=2)
    resumed.check.skips = run.check.skips
    resumed.step(1, NAN)
    with pytest.raises(FloatingPointError, match=r'the 2 iterations that max_skips allows .*v2, w'):
        resumed.step(2, NAN)


CLIPS = [
    None,
    dict(max_norm=0.05),
    dict(max_norm=0.05, norm_type=1),
    dict(type='value', clip_value=0.01),
]


@pytest.mark.parametrize('counts', [1, 2])
@pytest.mark.parametrize('clip', CLIPS)
def test_a_sound_gradient_is_clipped_and_logged_as_without_the_check(clip, counts):
    checked, unchecked = (Run(counts, checked, clip and dict(clip)) for checked in (True, False))
    for index in range(4):
        checked.step(index)
        unchecked.step(index)
    assert same(checked.state(), unchecked.state())
    assert not same(checked.state(), Run().state())
    norms = [run.message_hub.log_scalars.get('train/grad_norm') for run in (checked, unchecked)]
    if clip and 'max_norm' in clip:
        assert len(norms[0].data[0]) == 4 // counts
        assert list(norms[0].data[0]) == list(norms[1].data[0])
    else:
        assert norms == [None, None]


@pytest.mark.parametrize('clip', CLIPS)
@pytest.mark.parametrize('bad', ['nan', 'inf'])
def test_a_bad_gradient_of_a_finite_loss_stops_before_the_weights_are_spoilt(bad, clip):
    run = Run(clip=clip and dict(clip))
    run.step(0)
    weights = [p.detach().clone() for p in run.model.parameters()]
    text = (
        rf'gradient norm={bad} \(from layer\.weight\) at epoch 3, iteration 8, in the batch '
        r'of videos v7, w\.'
    )
    with pytest.raises(FloatingPointError, match=text):
        run.step(7, bad_gradient=bad)
    assert same(weights, [p.detach() for p in run.model.parameters()])


@pytest.mark.parametrize('clip', CLIPS)
def test_a_batch_with_a_bad_gradient_leaves_no_trace(clip):
    with_bad, without = (Run(clip=clip and dict(clip), action='skip') for _ in range(2))
    for index in (0, 1, 2):
        if index == 1:
            assert with_bad.step(index, bad_gradient='nan') == {}
        else:
            with_bad.step(index)
            without.step(index)
    assert same(with_bad.state(), without.state())
    assert with_bad.check.skips == 1
    assert 'rank 0: gradient norm=nan (from layer.weight)' in with_bad.said[0]


def test_the_batch_of_a_window_that_has_the_bad_gradient_is_skipped():
    run = Run(counts=3, action='skip')
    source = run.model.negatives = NegativeSource(queue_size=8)
    before = run.state()
    run.step(0)
    run.step(1, bad_gradient='inf')
    assert 'iteration 2, in the batch of videos v1, w.' in run.said[0]
    assert all(p.grad is None for p in run.model.parameters())
    assert same(before[:2], run.state()[:2])
    run.step(2)
    assert all(value.isfinite().all() for value in run.state())
    assert not same(before[:2], run.state()[:2])
    source.settle()
    assert source.bank.state()['video_ids'] == ['v0', 'w', 'v2', 'w']
    assert run.check.skips == 1


def test_a_large_finite_gradient_whose_norm_overflows_is_bad():
    run = Run()
    run.model.layer.weight.register_hook(lambda gradient: gradient * 0 + 3e38)
    with pytest.raises(FloatingPointError, match='gradient norm=inf at epoch 3'):
        run.step(0)


@pytest.mark.parametrize('enabled', [True, False])
def test_a_loss_scaler_sees_to_gradients_itself(enabled, monkeypatch):
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    run = Run(
        clip=dict(max_norm=5),
        wrapper=partial(AmpOptimWrapper, loss_scale=dict(enabled=enabled), dtype='bfloat16'),
    )
    before = [p.detach().clone() for p in run.model.parameters()]
    if enabled:
        scale = run.optim_wrapper.loss_scaler.get_scale()
        run.step(0, bad_gradient='inf')
        assert run.optim_wrapper.loss_scaler.get_scale() == scale / 2
    else:  # as with bfloat16
        with pytest.raises(FloatingPointError, match='gradient norm=inf'):
            run.step(0, bad_gradient='inf')
    assert same(before, [p.detach() for p in run.model.parameters()])
    if enabled:
        run.step(1)
        assert not same(before, [p.detach() for p in run.model.parameters()])


class Waits(TorchDispatchMode):
    """Counts how often the host asks for values of tensors on `meta`, in place of a GPU.

    Args:
        last (float): Last value of what it is given; the others are 0.
    """

    def __init__(self, last=0.0):
        super().__init__()
        self.count, self.last = 0, last

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        away = isinstance(args[0], torch.Tensor) and args[0].device.type == 'meta'
        if away and func is aten._local_scalar_dense.default:
            self.count += 1
            return self.last
        target = kwargs.get('device')
        if func is aten._to_copy.default and target is not None and (target.type == 'cpu') == away:
            self.count += 1
            if away:
                values = torch.zeros(args[0].shape, dtype=args[0].dtype)
                values.view(-1)[-1] = self.last
                return values
        return func(*args, **kwargs)


@pytest.fixture
def ranks(request, monkeypatch):
    """Make the hooks believe in so many ranks, and list what these reduce."""
    reduced = []
    if request.param > 1:
        monkeypatch.setattr(loss_check, 'get_world_size', lambda: request.param)
        monkeypatch.setattr(loss_check, 'get_comm_device', lambda: torch.device('meta'))
        monkeypatch.setattr(
            loss_check, 'all_reduce', lambda tensor, op: reduced.append((tensor.shape, op))
        )
        monkeypatch.setattr(preemption_hook, 'highest', lambda _: pytest.fail('a second time'))
    return reduced


def run_away(**settings):
    """A run on another device, with all hooks that could wait for it."""
    run = Run(device='meta', **settings)
    preemption = PreemptionHook()
    preemption._replaced = {15: None}  # it listens
    run.iter = 0
    run.check.prepare(run, preemption)
    return run, preemption


@pytest.mark.parametrize('ranks', [1, 2], indirect=True)
@pytest.mark.parametrize('clip', CLIPS)
@pytest.mark.parametrize('counts', [1, 2])
def test_the_host_waits_for_the_device_once_per_iteration(ranks, clip, counts):
    run, preemption = run_away(clip=clip and dict(clip), counts=counts, action='skip')
    for index in range(2):
        with Waits() as waits:
            outputs = run.step(index)
            RuntimeInfoHook().after_train_iter(run, index, {}, outputs)
            preemption.stop_if_asked(run)
        assert waits.count == 1
    assert run.said == []
    logged = {name: value.current() for name, value in run.message_hub.log_scalars.items()}
    assert logged.pop('train/grad_norm', 0.0) == 0.0
    assert logged == {
        'train/loss': 0.0,
        'train/loss_a': 0.0,
        'train/loss_b': 0.0,
        'train/loss_c': 0.0,
    }
    assert ranks in ([], [((3,), 'max')] * 2)


@pytest.mark.parametrize('ranks', [2], indirect=True)
def test_ranks_learn_with_the_loss_that_one_was_asked_to_stop(ranks):
    run, preemption = run_away()
    with Waits(last=1.0):
        run.step(0)
    with pytest.raises(Preempted):
        preemption.stop_if_asked(run)
    assert 'another process was asked to stop: stopping after iteration 0' in run.said[0]


@pytest.mark.parametrize(
    'wait',
    [
        lambda away: away.sum().item(),
        lambda away: away.cpu(),
        lambda away: float(away.max()),
        lambda away: away + torch.ones(2).to('meta'),
    ],
)
def test_waiting_is_counted(wait):
    away = torch.ones(2, device='meta')
    with Waits() as waits:
        wait(away)
    assert waits.count == 1


def test_clipping_by_mmengine_waits_too():
    run = Run(device='meta', checked=False, clip=dict(max_norm=5))
    with Waits() as waits:
        run.model.train_step(dict(inputs=torch.ones(2, 2, device='meta')), run.optim_wrapper)
    assert waits.count == 1  # and the losses are still to be fetched


@pytest.mark.parametrize('value', [NAN, INF])
def test_values_that_no_check_saw_are_looked_at_after_the_step(value):
    run = Run()
    run.model.train_step = lambda batch, optim_wrapper: dict(loss=torch.tensor(value))
    with pytest.raises(FloatingPointError, match=r'epoch 3, iteration 8.*videos v7, w'):
        run.step(7)


def test_of_any_model_the_sum_of_the_losses_is_looked_at_before_the_step():
    run = Run(action='skip')
    run.model.parse_losses = partial(BaseModel.parse_losses, run.model)
    before = run.state()
    assert run.step(0, NAN) == {}
    assert same(before, run.state())
    assert 'rank 0: loss=nan at epoch 3' in run.said[0]
    assert run.step(1)['loss'].isfinite()
    assert not same(before, run.state())


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'stop' or 'skip', not 'ignore'"):
        LossCheck(action='ignore')
