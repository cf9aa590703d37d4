"""A loss or gradient that is no number stops training, or its batch is left out."""

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.away_device import AwayDevice
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from torch import nn

from mmn_plugin.engine import LossCheck, PreemptionHook, loss_check, preemption
from mmn_plugin.models import BaseLocalizer

NAN, INF = float('nan'), float('inf')
CLIPS = [
    None,
    dict(max_norm=0.05),
    dict(max_norm=0.05, norm_type=1),
    dict(type='value', clip_value=0.01),
]
CLIP_NAMES = ['unclipped', 'norm', 'norm of type 1', 'value']


class Model(BaseLocalizer):
    """BatchNorm in front, as in the neck: its statistics see the batch before the loss does."""

    def __init__(self):
        super().__init__()
        self.bad_gradient = None
        self.norm, self.layer = nn.BatchNorm1d(2), nn.Linear(2, 1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        weight = self.layer.weight.sum()
        zero = dict(nan=weight * 0, inf=weight - weight.detach()).get(self.bad_gradient)
        return dict(
            loss_a=self.layer(self.norm(inputs)).square().mean(),
            loss_b=inputs.sum() * 0,
            loss_c=inputs.sum() * 0 if zero is None else zero.sqrt(),
        )


class Run:
    """A runner of just what the check looks at."""

    iter, epoch = 0, 2

    def __init__(
        self, counts=1, checked=True, clip=None, wrapper=OptimWrapper, device='cpu', **settings
    ):
        torch.manual_seed(0)
        self.model, self.message_hub = Model().to(device), MessageHub(f'run {id(self)}')
        self.optim_wrapper = wrapper(
            optimizer=torch.optim.AdamW(self.model.parameters(), lr=0.1),
            accumulative_counts=counts,
            clip_grad=clip and dict(clip),
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
        inputs = torch.tensor(
            [[1.0, 2.0], [3.0, index + value]], device=self.model.norm.weight.device
        )
        samples = [SimpleNamespace(video_id=f'v{index}'), SimpleNamespace(video_id='w')]
        batch = dict(inputs=inputs, data_samples=samples)
        if not self.checked:
            return self.model.train_step(batch, self.optim_wrapper)
        return self.check.train_step(self, index, batch)

    def weights(self):
        return [value.detach().clone() for value in self.model.parameters()]

    def state(self):
        return [value.clone() for value in self.model.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize('counts', [1, 2])
@pytest.mark.parametrize('clip', CLIPS, ids=CLIP_NAMES)
def test_sound_values_train_and_are_clipped_and_logged_as_without_the_check(clip, counts):
    checked, unchecked = (Run(counts, checked, clip) for checked in (True, False))
    for index in range(4):
        assert checked.step(index)['loss'] == unchecked.step(index)['loss']
    assert same(checked.state(), unchecked.state())
    assert not same(checked.weights(), Run().weights())
    norms = [run.message_hub.log_scalars.get('train/grad_norm') for run in (checked, unchecked)]
    if clip and 'max_norm' in clip:
        assert len(norms[0].data[0]) == 4 // counts
        assert list(norms[0].data[0]) == list(norms[1].data[0])
    else:
        assert norms == [None, None]
    assert checked.said == []


@pytest.mark.parametrize('clip', CLIPS, ids=CLIP_NAMES)
@pytest.mark.parametrize(
    ('values', 'what'),
    [
        (dict(value=NAN), 'loss=nan, .*'),
        (dict(value=INF), 'loss=nan, .*'),
        (dict(value=-INF), 'loss=nan, .*'),
        (dict(bad_gradient='nan'), r'gradient norm=nan \(from layer\.weight\)'),
        (dict(bad_gradient='inf'), r'gradient norm=inf \(from layer\.weight\)'),
    ],
    ids=['nan', 'inf', '-inf', 'gradient nan', 'gradient inf'],
)
def test_it_stops_before_the_weights_are_spoilt(values, what, clip):
    run = Run(clip=clip)
    run.step(0)
    weights = run.weights()
    place = rf'^{what} at epoch 3, iteration 8, in the batch of videos v7, w\.'
    with pytest.raises(FloatingPointError, match=place):
        run.step(7, **values)
    assert same(weights, run.weights())


@pytest.mark.parametrize('clip', CLIPS, ids=CLIP_NAMES)
@pytest.mark.parametrize(
    ('values', 'what'),
    [(dict(value=NAN), 'loss=nan'), (dict(bad_gradient='nan'), 'gradient norm=nan (from layer.')],
    ids=['nan', 'gradient nan'],
)
def test_a_skipped_batch_leaves_no_trace(values, what, clip):
    with_bad, without = (Run(clip=clip, action='skip') for _ in range(2))
    for index in (0, 1, 2):
        if index == 1:
            before = with_bad.state()
            assert with_bad.step(index, **values) == {}
            assert same(before, with_bad.state())
        else:
            with_bad.step(index)
            without.step(index)
    assert same(with_bad.state(), without.state())
    assert with_bad.optim_wrapper.inner_count == 3
    (said,) = with_bad.said
    assert f'iteration skipped (1 of at most 100): rank 0: {what}' in said
    assert 'videos v1, w' in said


@pytest.mark.parametrize('values', [dict(value=NAN), dict(bad_gradient='inf')])
def test_a_skipped_batch_drops_its_window_of_accumulation(values):
    run = Run(counts=3, action='skip')
    before = run.weights()
    run.step(0)
    run.step(1, **values)  # neither is stepped, and the second alone is told of
    assert 'iteration 2, in the batch of videos v1, w.' in run.said[0]
    assert all(p.grad is None for p in run.model.parameters())
    assert same(before, run.weights())
    run.step(2)
    assert all(value.isfinite().all() for value in run.weights())
    assert not same(before, run.weights())
    assert run.check.skips == 1


def test_too_many_skips_stop_also_after_a_resume():
    run, resumed = (Run(action='skip', max_skips=2) for _ in range(2))
    run.step(0, NAN)
    resumed.check.skips = run.check.skips
    resumed.step(1, NAN)
    with pytest.raises(FloatingPointError, match=r'the 2 iterations that max_skips allows .*v2, w'):
        resumed.step(2, NAN)


def test_a_large_finite_gradient_whose_norm_overflows_is_bad():
    run = Run()
    run.model.layer.weight.register_hook(lambda gradient: gradient * 0 + 3e38)
    with pytest.raises(FloatingPointError, match='gradient norm=inf at epoch 3'):
        run.step(0)


@pytest.mark.parametrize('enabled', [True, False])
def test_a_loss_scaler_sees_to_gradients_itself(enabled, monkeypatch):
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    scaled = partial(AmpOptimWrapper, loss_scale=dict(enabled=enabled), dtype='bfloat16')
    run = Run(clip=dict(max_norm=5), wrapper=scaled)
    before = run.weights()
    if not enabled:  # as with bfloat16
        with pytest.raises(FloatingPointError, match='gradient norm=inf'):
            run.step(0, bad_gradient='inf')
        return
    scale = run.optim_wrapper.loss_scaler.get_scale()
    run.step(0, bad_gradient='inf')
    assert run.optim_wrapper.loss_scaler.get_scale() == scale / 2
    assert same(before, run.weights())
    run.step(1)
    assert not same(before, run.weights())


@pytest.mark.parametrize('counts', [1, 2])
@pytest.mark.parametrize('norm_type', [1, 2])
def test_with_a_loss_scaler_clipping_is_that_of_gradients_scaled_back(
    norm_type, counts, monkeypatch
):
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    scaled = partial(AmpOptimWrapper, dtype='bfloat16')
    clip = dict(max_norm=0.05, norm_type=norm_type)
    checked, unchecked = (Run(counts, known, clip, scaled) for known in (True, False))
    for index in range(4):
        bad = 'inf' if index == 2 else None
        checked.step(index, bad_gradient=bad)
        unchecked.step(index, bad_gradient=bad)
    assert same(checked.state(), unchecked.state())
    assert not same(checked.weights(), Run().weights())
    norms = [run.message_hub.log_scalars['train/grad_norm'].data[0] for run in (checked, unchecked)]
    assert len(norms[0]) == 4 // counts
    assert [*norms[0]] == pytest.approx([*norms[1]], rel=0, nan_ok=True)


@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('clip', CLIPS, ids=CLIP_NAMES)
@pytest.mark.parametrize('counts', [1, 2])
def test_the_host_waits_for_the_device_once_per_iteration(ranks, clip, counts, monkeypatch):
    reduced = []
    if ranks > 1:
        monkeypatch.setattr(loss_check, 'get_world_size', lambda: ranks)
        monkeypatch.setattr(loss_check, 'get_comm_device', lambda: torch.device('meta'))
        monkeypatch.setattr(loss_check, 'all_reduce', lambda x, op: reduced.append((x.shape, op)))
        monkeypatch.setattr(preemption, 'highest', lambda _: pytest.fail('a second time'))
    run, hook = Run(counts, clip=clip, device='meta', action='skip'), PreemptionHook()
    hook._replaced = {15: None}  # it listens
    run.check.prepare(run, hook)
    for index in range(2):
        with AwayDevice() as device:
            outputs = run.step(index)
            RuntimeInfoHook().after_train_iter(run, index, {}, outputs)
            hook.stop_if_asked(run)
        assert len(device.waits) == 1
    assert run.said == []
    logged = {name: value.current() for name, value in run.message_hub.log_scalars.items()}
    assert logged.pop('train/grad_norm', 0.0) == 0.0
    assert logged == dict.fromkeys([f'train/loss{end}' for end in ('', '_a', '_b', '_c')], 0.0)
    assert reduced == ([((3,), 'max')] * 2 if ranks > 1 else [])
    if ranks > 1:  # what another one was asked comes with the losses
        with AwayDevice(last=1.0):
            run.step(2)
        with pytest.raises(preemption.Preempted):
            hook.stop_if_asked(run)
        assert 'another process was asked to stop: stopping after iteration 0' in run.said[0]


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
