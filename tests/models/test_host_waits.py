"""No loss, and no loss's gradient, makes the host wait for the device; a prediction does once.

A training step does wait elsewhere, docs/performance.md says where; that `LossCheck` waits once
is tested with it.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from helpers.away_device import AWAY, AwayDevice
from helpers.tiny_models import batch_of, build_tiny, sample_of
from mmaction.registry import MODELS
from mmengine.structures import InstanceData

from mmn_plugin.evaluation import GroundingMetric, TubeGroundingMetric
from mmn_plugin.models import NegativeSource
from mmn_plugin.structures import MomentGrid, TubeDataSample

SPACES = ('iou', 'contrastive')


def samples():
    return [sample_of(f'v{i}', ['a person opens the door'] * n) for i, n in enumerate((2, 1, 3))]


def stand_in(monkeypatch, head):
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # knows no meta
    for grid in (head.to(AWAY).grid, head.units):
        grid.spans(torch.ones(1, device=AWAY))  # the grid is copied once, before
    return head


@pytest.mark.parametrize('source', [NegativeSource(), NegativeSource(exclude_same_text=True)])
def test_losses_and_their_gradients_do_not_wait(source, monkeypatch):
    model = build_tiny()
    batch = batch_of(model, samples())
    video = batch['sentences'].video
    head = stand_in(monkeypatch, model.head)
    head.negatives = source
    moments, sentences = (
        {space: torch.randn(*shape, device=AWAY, requires_grad=True) for space in SPACES}
        for shape in ((3, model.grid.num_moments, 8), (6, 8))
    )
    with AwayDevice() as device:
        video = video.to(AWAY, non_blocking=True)
        losses = head.loss(moments, sentences, video, batch['data_samples'])
        sum(losses.values()).backward()
    assert device.waits == []
    assert all(value.grad is not None for part in (moments, sentences) for value in part.values())


def assert_a_prediction_waits_once(metric, head, units, sentences, samples, spaces=SPACES):
    videos, texts = (
        {space: torch.randn(*shape, device=AWAY) for space in spaces}
        for shape in ((units, head.units.num_moments, 8), (sentences, 8))
    )
    with AwayDevice() as device, torch.no_grad():
        ranked = head.predict(head.split(videos, samples), texts, samples)
        metric.process(None, [sample.to_dict() for sample in ranked])
    assert len(metric.results) == 3
    assert device.waits == ['aten._to_copy']


@pytest.mark.parametrize(
    ('config', 'spaces'), [('mmn_charades.py', SPACES), ('mscl_charades.py', ['contrastive'])]
)
def test_a_prediction_waits_once_for_all_videos(config, spaces, monkeypatch):
    head = stand_in(monkeypatch, build_tiny(config).head)
    assert_a_prediction_waits_once(GroundingMetric(), head, 3, 6, samples(), spaces)


def test_a_prediction_of_tubes_waits_once_for_all_videos(monkeypatch):
    grid = dict(num_clips=4, pooling_counts=[3])
    loss = dict(negative_iou=0.5, margin=0.0, temperature_video=0.1, temperature_sentence=0.1)
    head = MODELS.build(
        dict(
            type='TubeMatchingHead',
            grid=MomentGrid(**grid),
            contrastive_weight=1.0,
            loss_matching=dict(type='TubeMatchingLoss', **loss),
            loss_iou=dict(type='IoURegressionLoss', min_iou=0.5, max_iou=1.0),
        )
    )
    made = []
    for index in range(3):
        tube = np.arange(20, dtype=np.float32)[:, None] + np.array([0, 1, 1, 40, 40], np.float32)
        about = dict(video_id=f'v{index}', sentences=['a red circle'], sentence_index=[0])
        made.append(TubeDataSample(metainfo=dict(about, tubes=[tube, tube + 1], tube_index=[0, 1])))
        made[-1].gt_instances = InstanceData(tubes=[tube])
    metric = TubeGroundingMetric(bounds=grid)
    assert_a_prediction_waits_once(metric, stand_in(monkeypatch, head), 6, 3, made)
