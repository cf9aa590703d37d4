"""The host waits for the device once in a training step, and once for a batch's predictions."""

import logging
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.away_device import AWAY, AwayDevice
from helpers.made_up_tubes import random_video, tube_sample
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS
from helpers.tiny_models import build_tiny, sample_of
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import amp
from torch.optim import adam

from mmn_plugin.engine import LossCheck
from mmn_plugin.evaluation import GroundingMetric, TubeGroundingMetric
from mmn_plugin.models import negatives
from mmn_plugin.structures import TubeDataSample, true_windows


def tube_samples():
    rng = np.random.default_rng(0)
    return [tube_sample(random_video(rng, f'v{index}', num_tubes=2)) for index in range(3)]


def with_windows(samples, counts=(2, 0, 1)):
    """The same with so many windows for each sentence, in turn."""
    for sample in samples:
        own = [[(k, k + 5.0) for k in range(count)] for count in counts]
        sample.gt_instances = true_windows(own[: len(sample.sentences)])
    return samples


def padded_samples():
    """Sentences of one group through the language model differ in length."""
    texts = ['a person opens the door', 'then the box', 'the red box']
    return [sample_of(f'v{count}', texts[:count]) for count in (2, 1, 3)]


@pytest.fixture
def away(monkeypatch):
    """What would run on the device only, on its stand-in; precisions are those of the weights."""
    for where, name in ((torch, 'autocast'), (amp, 'autocast')):
        monkeypatch.setattr(where, name, lambda *_, **__: nullcontext())
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))
    monkeypatch.setattr(adam, '_device_dtype_check_for_fused', lambda *_, **__: None)


@pytest.fixture
def two_ranks(monkeypatch):
    """A second process with the same batch."""

    def gather(about, group):
        assert group == 'the hosts'  # or names would pass through the device
        return [about, about]

    group = SimpleNamespace(group=SimpleNamespace(WORLD=None), all_reduce=lambda _: None)
    group.all_gather = lambda parts, rows: [part.copy_(rows) for part in parts]
    for name, value in (
        ('get_world_size', lambda: 2),
        ('all_gather_object', gather),
        ('host_group', lambda _: 'the hosts'),
        ('all_reduce', lambda value, op: value),
        ('dist', group),
    ):
        monkeypatch.setattr(negatives, name, value)


def waits_of_a_step(model, samples, shape, wrapper=OptimWrapper, **settings):
    """Of a step after the first, which copies what stays on the device, and of a validation with
    its metric.
    """
    model, batch = model.to(AWAY), dict(inputs=[torch.randn(shape)] * 3, data_samples=samples)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    runner = SimpleNamespace(model=model, logger=logging.getLogger(), epoch=0, iter=0)
    runner.optim_wrapper = wrapper(optimizer=optimizer, clip_grad=dict(max_norm=5), **settings)
    (check := LossCheck()).prepare(runner)
    for _ in range(2):
        with AwayDevice() as step:
            check.train_step(runner, 0, batch)
    tubes = isinstance(samples[0], TubeDataSample)
    metric = TubeGroundingMetric(bounds=GRID) if tubes else GroundingMetric()
    model.eval()
    for _ in range(2):
        with AwayDevice() as validation, torch.no_grad():
            ranked = model.val_step(batch)
            metric.process(None, [sample.to_dict() for sample in ranked])
    assert len(metric.results) == 2 * len(samples)
    return step.waits, validation.waits


ONCE = (['aten._to_copy'],) * 2
VIDEO, TUBES = (NUM_SEGMENTS, FEATURE_SIZE), (2, NUM_SEGMENTS, FEATURE_SIZE)
GRID = dict(num_clips=8, pooling_counts=[7])  # of the tiny models
SCALED = dict(wrapper=AmpOptimWrapper, dtype='float16')


@pytest.mark.parametrize('precision', [{}, SCALED], ids=['float32', 'loss scaler'])
@pytest.mark.parametrize(
    'source',
    [{}, dict(exclude_same_text=True), dict(exclude_similar=0.9)],
)
@pytest.mark.parametrize('config', ['mmn_charades.py', 'mscl_charades.py'])
def test_a_whole_step_and_a_validation_wait_once(config, source, precision, away):
    frozen = dict(frozen='exclude_similar' in source)
    model = build_tiny(config, head=dict(negatives=source), text_encoder=frozen)
    assert waits_of_a_step(model, padded_samples(), VIDEO, **precision) == ONCE


@pytest.mark.parametrize(
    'settings',
    [
        dict(positives='sentence'),
        dict(absent='ignore'),
        dict(negatives=dict(exclude_same_text=True)),
    ],
    ids=str,
)
def test_a_whole_step_with_several_windows_or_none_waits_once(settings, away):
    model = build_tiny(head=settings)
    assert waits_of_a_step(model, with_windows(padded_samples()), VIDEO) == ONCE


@pytest.mark.parametrize('precision', [{}, SCALED], ids=['float32', 'loss scaler'])
@pytest.mark.parametrize('piece', [None, 2])
def test_a_whole_step_and_a_validation_of_tubes_wait_once(piece, precision, away):
    model = build_tiny('mmn_hcstvg.py', head=dict(negatives=dict(piece=piece)))
    assert waits_of_a_step(model, tube_samples(), TUBES, **precision) == ONCE


@pytest.mark.parametrize('config', ['mmn_charades.py', 'mscl_charades.py'])
def test_a_whole_step_with_the_negatives_of_all_ranks_waits_once(config, away, two_ranks):
    model = build_tiny(config, head=dict(negatives=dict(scope='global')))
    assert waits_of_a_step(model, padded_samples(), VIDEO) == ONCE
