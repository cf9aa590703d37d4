"""No loss, and no loss's gradient, makes the host wait for the device.

A training step does wait elsewhere, docs/performance.md says where; that `CheckLossHook` waits once
is tested with it.
"""
from contextlib import nullcontext

import pytest
import torch
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from mmn_plugin.models.heads import MutualMatchingHead
from mmn_plugin.models.negatives import NegativeSource
from mmn_plugin.structures import GroundingDataSample

aten = torch.ops.aten
ASKS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount,
        aten.repeat_interleave, aten.equal}
AWAY = torch.device('meta')  # tensors without values stand in for those on a GPU


class NoWaiting(TorchDispatchMode):
    """Fails where values of a tensor that is not on the host are asked for, or a copy waits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        away = any(tensor.device == AWAY for tensor in tensors)
        asks = func.overloadpacket in ASKS
        if func.overloadpacket is aten.index:
            asks = any(index is not None and index.dtype == torch.bool for index in args[1])
        if func.overloadpacket is aten._to_copy:
            target = (kwargs or {}).get('device')
            asks = target is not None and target.type == 'cpu'
            host_to_device = target == AWAY and not away
            assert not host_to_device or kwargs.get('non_blocking'), 'a copy that is waited for'
        assert not (away and asks), f'{func} makes the host wait'
        return func(*args, **(kwargs or {}))


def samples(*counts):
    result = []
    for video, count in enumerate(counts):
        sample = GroundingDataSample(metainfo=dict(
            video_id=f'v{video}', duration=20., sentences=['a person opens the door'] * count,
            sentence_index=list(range(count))))
        sample.gt_instances = InstanceData(
            moments=torch.tensor([[1., 9. + i] for i in range(count)]))
        result.append(sample)
    return result


@pytest.fixture
def model():
    config = Config.fromfile('mmn_plugin::mmn_charades.py')
    config.merge_from_dict(dict(model=tiny_model('unused')))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    return MODELS.build(config.model)


@pytest.mark.parametrize('source', [NegativeSource(), NegativeSource(exclude_same_text=True)])
def test_losses_and_their_gradients_do_not_wait(model, source, monkeypatch):
    batch = model.data_preprocessor(dict(
        inputs=[torch.randn(NUM_SEGMENTS, FEATURE_SIZE)] * 3, data_samples=samples(2, 1, 3)))
    shapes = [(3, model.grid.num_moments, 8)] * 2, [(6, 8)] * 2
    head, video = model.head, batch['sentences'].video
    head.negatives = source
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # knows no meta
    head.grid.spans(torch.ones(1, device=AWAY))  # the grid is copied once, before
    moments, sentences = (
        {space: torch.randn(shape, device=AWAY, requires_grad=True)
         for space, shape in zip(('iou', 'contrastive'), part, strict=True)} for part in shapes)
    with NoWaiting():
        losses = head.loss(moments, sentences, video.to(AWAY, non_blocking=True),
                           batch['data_samples'])
        sum(losses.values()).backward()
    assert all(value.grad is not None for part in (moments, sentences)
               for value in part.values())


@pytest.mark.parametrize('ask', [
    lambda away: away.sum().item(), lambda away: away[away > 0], lambda away: away.cpu(),
    lambda away: away.nonzero(), lambda away: torch.ones(2).to(AWAY),
    lambda away: MutualMatchingHead.own_video_cosines(away, away[0], away[0, :, 0].long())])
def test_waiting_is_noticed(ask):
    away = torch.ones(2, 3, 4, device=AWAY)
    with pytest.raises((AssertionError, NotImplementedError)), NoWaiting():
        ask(away)
