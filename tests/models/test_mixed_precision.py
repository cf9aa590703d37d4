"""What stays in float32 under bfloat16 autocast."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_models import batch_of, build_tiny
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture(params=['MomentMapPool', 'MomentMapConv'])
def model(request):
    return build_tiny(neck=dict(moment_map=dict(type=request.param)))


def bf16():
    return torch.autocast('cpu', dtype=torch.bfloat16)


def test_losses_and_statistics_are_in_float32_and_agree_with_a_pass_without_autocast(
    model, monkeypatch
):
    seen, original = [], F.normalize

    def record(value, *args, **kwargs):
        seen.append(value.dtype)
        return original(value, *args, **kwargs)

    monkeypatch.setattr(F, 'normalize', record)
    exact, batch = copy.deepcopy(model), batch_of(model)
    expected = exact(**batch, mode='loss')
    with bf16():
        moments, sentences = copy.deepcopy(model)(batch['inputs'], batch['sentences'])
        losses = model(**batch, mode='loss')
        ranked = copy.deepcopy(model).eval()(**batch, mode='predict')
    assert moments['iou'].dtype == sentences['iou'].dtype == torch.bfloat16
    assert set(seen) == {torch.float32}
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[name].item(), rel=0.02)
    sum(losses.values()).backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    scores = torch.cat([sample.pred_instances.scores for sample in ranked])
    present = scores[~scores.isnan()]
    assert not torch.equal(present, present.bfloat16().float())  # finer than bfloat16 resolves
    norms = [
        [module for module in one.modules() if isinstance(module, nn.BatchNorm2d)]
        for one in (model, exact)
    ]
    assert norms[0]
    for rounded, wanted in zip(*norms, strict=True):
        for name in ('running_mean', 'running_var'):
            ours, theirs = getattr(rounded, name), getattr(wanted, name)
            assert ours.dtype == torch.float32
            assert (ours - theirs).abs().max() <= 0.01 * theirs.abs().max()


class Encoding(TorchDispatchMode):
    """Precisions of all maps (2, 8, ...), and how many copies of weights are there at a time."""

    def __init__(self):
        super().__init__()
        self.precisions, self.copies, self.most = set(), [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for value in output if isinstance(output, list | tuple) else [output]:
            is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
            if is_float and value.shape[:2] == (2, 8):
                self.precisions.add(value.dtype)
        if func.overloadpacket is torch.ops.aten._to_copy and args[0].shape == (8, 8, 3, 3):
            self.copies.append(weakref.ref(output))
        if func.overloadpacket is torch.ops.aten.convolution:
            self.most = max(self.most, sum(copy() is not None for copy in self.copies))
        return output


def test_the_dense_encoder_is_in_bfloat16_and_holds_one_layers_weights_without_gradients():
    encoder = build_tiny(neck=dict(conv_mode='dense')).neck.encoder
    moments = torch.randn(2, 8, len(encoder.cells))
    exact, given = encoder(moments), moments.bfloat16().requires_grad_()
    with Encoding() as training:
        with bf16():
            encoded = encoder(given)
        encoded.backward(torch.ones_like(encoded))
    assert training.precisions == {torch.bfloat16}
    with torch.no_grad(), bf16(), Encoding() as inference:
        rounded = encoder(moments)
    assert len(inference.copies) == len(encoder.convs) > 1
    assert inference.most == 1
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.05)
