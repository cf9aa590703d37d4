"""No loss, and no loss's gradient, makes the host wait for the device; a prediction does once.

A training step does wait elsewhere, docs/performance.md says where; that `LossCheck` waits once
is tested with it.
"""

from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from helpers.away_device import AWAY, AwayDevice
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from helpers.tiny_weak import tiny_weak_model
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmn_plugin.evaluation import GroundingMetric, TubeGroundingMetric
from mmn_plugin.models import NegativeSource
from mmn_plugin.structures import GroundingDataSample, MomentGrid, TubeDataSample


def samples(*counts):
    result = []
    for video, count in enumerate(counts):
        sample = GroundingDataSample(
            metainfo=dict(
                video_id=f'v{video}',
                duration=20.0,
                sentences=['a person opens the door'] * count,
                sentence_index=list(range(count)),
            )
        )
        sample.gt_instances = InstanceData(
            moments=torch.tensor([[1.0, 9.0 + i] for i in range(count)])
        )
        result.append(sample)
    return result


def build(name, settings):
    config = Config.fromfile(f'mmn_plugin::{name}')
    config.merge_from_dict(dict(model=settings))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    return MODELS.build(config.model)


@pytest.fixture
def model():
    return build('mmn_charades.py', tiny_model('unused'))


def stand_in(monkeypatch, head):
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # knows no meta
    head.to(AWAY).grid.spans(torch.ones(1, device=AWAY))  # the grid is copied once, before


@pytest.mark.parametrize('source', [NegativeSource(), NegativeSource(exclude_same_text=True)])
def test_losses_and_their_gradients_do_not_wait(model, source, monkeypatch):
    batch = model.data_preprocessor(
        dict(inputs=[torch.randn(NUM_SEGMENTS, FEATURE_SIZE)] * 3, data_samples=samples(2, 1, 3))
    )
    shapes = [(3, model.grid.num_moments, 8)] * 2, [(6, 8)] * 2
    head, video = model.head, batch['sentences'].video
    head.negatives = source
    stand_in(monkeypatch, head)
    moments, sentences = (
        {
            space: torch.randn(shape, device=AWAY, requires_grad=True)
            for space, shape in zip(('iou', 'contrastive'), part, strict=True)
        }
        for part in shapes
    )
    with AwayDevice() as device:
        losses = head.loss(
            moments, sentences, video.to(AWAY, non_blocking=True), batch['data_samples']
        )
        sum(losses.values()).backward()
    assert device.waits == []
    assert all(value.grad is not None for part in (moments, sentences) for value in part.values())


def embeddings(*shape):
    return {space: torch.randn(*shape, device=AWAY) for space in ('iou', 'contrastive')}


def wait_of_a_prediction(metric, head, videos, sentences, samples):
    with AwayDevice() as device, torch.no_grad():
        ranked = head.predict(head.split(videos, samples), sentences, samples)
        metric.process(None, [sample.to_dict() for sample in ranked])
    assert len(metric.results) == 3
    assert device.waits == ['aten._to_copy']
    return ranked


def test_a_prediction_waits_once_for_all_videos(model, monkeypatch):
    stand_in(monkeypatch, model.head)
    wait_of_a_prediction(
        GroundingMetric(),
        model.head,
        embeddings(3, model.grid.num_moments, 8),
        embeddings(6, 8),
        samples(2, 1, 3),
    )


def test_a_prediction_by_curves_waits_once_for_all_videos(monkeypatch):
    head = build('mscl_charades.py', tiny_weak_model('unused')).head
    stand_in(monkeypatch, head)
    head.units.spans(torch.ones(1, device=AWAY))
    wait_of_a_prediction(
        GroundingMetric(),
        head,
        dict(contrastive=torch.randn(3, head.grid.num_clips, 8, device=AWAY)),
        dict(contrastive=torch.randn(6, 8, device=AWAY)),
        samples(2, 1, 3),
    )


def test_a_prediction_of_tubes_waits_once_for_all_videos(monkeypatch):
    grid = dict(num_clips=4, pooling_counts=[3])
    head = MODELS.build(
        dict(
            type='TubeMatchingHead',
            grid=MomentGrid(**grid),
            contrastive_weight=1.0,
            loss_matching=dict(
                type='TubeMatchingLoss',
                negative_iou=0.5,
                margin=0.0,
                temperature_video=0.1,
                temperature_sentence=0.1,
            ),
            loss_iou=dict(type='IoURegressionLoss', min_iou=0.5, max_iou=1.0),
        )
    )
    stand_in(monkeypatch, head)
    made = []
    for index in range(3):
        tube = np.arange(20, dtype=np.float32)[:, None] + np.array([0, 1, 1, 40, 40], np.float32)
        made.append(
            TubeDataSample(
                metainfo=dict(
                    video_id=f'v{index}',
                    sentences=['a red circle'],
                    sentence_index=[0],
                    tubes=[tube, tube + 1],
                    tube_index=[0, 1],
                )
            )
        )
        made[-1].gt_instances = InstanceData(tubes=[tube])
    wait_of_a_prediction(
        TubeGroundingMetric(bounds=grid),
        head,
        embeddings(6, head.grid.num_moments, 8),
        embeddings(3, 8),
        made,
    )


@pytest.mark.parametrize(
    'ask',
    [
        lambda away: away.sum().item(),
        lambda away: away[away > 0],
        lambda away: away.cpu(),
        lambda away: away.nonzero(),
        lambda away: torch.ones(2).to(AWAY),
        lambda away: away[:, torch.zeros(1, dtype=torch.int64)],
        lambda away: torch.zeros(3, 4).copy_(away[0]),
        lambda away: away.max().item(),
    ],
)
def test_waiting_is_noticed(ask):
    away = torch.ones(2, 3, 4, device=AWAY)
    with AwayDevice() as device, suppress(NotImplementedError):
        ask(away)
    assert len(device.waits) == 1
