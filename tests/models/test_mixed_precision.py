"""What stays in float32 under bfloat16 autocast."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_corpus import FEATURE_SIZE, NUM_SEGMENTS, VOCABULARY, tiny_model
from mmaction.registry import MODELS
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmn_plugin.structures import GroundingDataSample

SENTENCES = ['a person opens the door', 'the red box', 'then the blue box slowly closes']


@pytest.fixture(params=['MomentMapPool', 'MomentMapConv'])
def model(request):
    torch.manual_seed(0)
    config = Config.fromfile('mmn_plugin::mmn_charades.py')
    config.merge_from_dict(dict(model=tiny_model('unused', dropout=0.0)))
    config.model.data_preprocessor.tokenizer.vocab = list(VOCABULARY)
    config.model.neck.moment_map = dict(type=request.param)
    return MODELS.build(config.model)


@pytest.fixture
def batch(model):
    samples = []
    for video, count in (('v', 2), ('w', 3)):
        sample = GroundingDataSample(
            metainfo=dict(
                video_id=video,
                duration=20.0,
                sentences=SENTENCES[:count],
                sentence_index=list(range(count)),
            )
        )
        moments = torch.rand(count, 2) * 8
        sample.gt_instances = InstanceData(moments=moments.cumsum(1) + torch.tensor([0.0, 1.0]))
        samples.append(sample)
    inputs = [torch.randn(NUM_SEGMENTS, FEATURE_SIZE) for _ in samples]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=samples))


def bf16():
    return torch.autocast('cpu', dtype=torch.bfloat16)


@pytest.fixture
def normalized(monkeypatch):
    """Precision of everything that is L2-normalized."""
    seen, original = [], F.normalize

    def record(value, *args, **kwargs):
        seen.append(value.dtype)
        return original(value, *args, **kwargs)

    monkeypatch.setattr(F, 'normalize', record)
    return seen


def test_embeddings_are_bfloat16_and_losses_float32(model, batch, normalized):
    with bf16():
        moments, sentences = model(batch['inputs'], batch['sentences'])
        losses = model(**batch, mode='loss')
    assert moments['iou'].dtype == sentences['iou'].dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert set(normalized) == {torch.float32}
    sum(losses.values()).backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


class MapPrecisions(TorchDispatchMode):
    """Collects the precision of everything (B, H, ...) that is computed within."""

    def __init__(self, videos: int, channels: int):
        super().__init__()
        self.shape, self.seen = (videos, channels), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for value in output if isinstance(output, list | tuple) else [output]:
            if (
                isinstance(value, torch.Tensor)
                and value.shape[:2] == self.shape
                and value.is_floating_point()
            ):
                self.seen.add(value.dtype)
        return output


def test_the_dense_encoder_is_in_bfloat16_through_all_layers_and_back(model):
    encoder = model.neck.encoder
    encoder.conv_mode = 'dense'
    moments = torch.randn(2, 8, model.grid.num_moments, dtype=torch.bfloat16, requires_grad=True)
    assert len(encoder.convs) > 1
    with MapPrecisions(2, 8) as precisions:
        with bf16():
            encoded = encoder(moments)
        encoded.backward(torch.ones_like(encoded))
    assert precisions.seen == {torch.bfloat16}


class WeightCopies(TorchDispatchMode):
    """Counts copies of the convolutions' weights that are there at the same time."""

    def __init__(self):
        super().__init__()
        self.copies, self.most = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten._to_copy and args[0].shape == (8, 8, 3, 3):
            self.copies.append(weakref.ref(output))
        if func.overloadpacket is torch.ops.aten.convolution:
            self.most = max(self.most, sum(copy() is not None for copy in self.copies))
        return output


def test_the_dense_encoder_holds_one_layers_rounded_weights_where_no_gradient_needs_more(model):
    encoder = model.neck.encoder
    encoder.conv_mode = 'dense'
    moments = torch.randn(2, 8, model.grid.num_moments)
    exact = encoder(moments)
    with torch.no_grad(), bf16(), WeightCopies() as weights:
        rounded = encoder(moments)
    assert len(weights.copies) == len(encoder.convs)
    assert weights.most == 1
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)


def test_scores_are_ranked_in_float32(model, batch, normalized):
    model.eval()
    with torch.no_grad(), bf16():
        ranked = model(**batch, mode='predict')
    scores = torch.cat([sample.pred_instances.scores for sample in ranked])
    assert scores.dtype == torch.float32
    assert set(normalized) == {torch.float32}
    present = scores[~scores.isnan()]
    assert not torch.equal(present, present.bfloat16().float())  # finer than bfloat16 resolves


def test_batch_statistics_are_those_of_float32(model, batch):
    exact = copy.deepcopy(model)
    exact(**batch, mode='loss')
    with bf16():
        model(**batch, mode='loss')
    pairs = [
        (one, two)
        for one, two in zip(model.modules(), exact.modules(), strict=True)
        if isinstance(one, nn.BatchNorm2d)
    ]
    assert pairs
    for rounded, wanted in pairs:
        assert rounded.running_mean.dtype == rounded.running_var.dtype == torch.float32
        for name in ('running_mean', 'running_var'):
            ours, theirs = getattr(rounded, name), getattr(wanted, name)
            assert (ours - theirs).abs().max() <= 0.01 * theirs.abs().max()


def test_losses_agree_with_float32_as_far_as_the_embeddings_do(model, batch):
    exact = copy.deepcopy(model)(**batch, mode='loss')
    with bf16():
        rounded = model(**batch, mode='loss')
    for name, loss in exact.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.02)
