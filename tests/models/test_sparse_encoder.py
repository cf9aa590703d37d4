"""The sparse moment encoder against the dense one."""
import copy
import pickle

import pytest
import torch
from mmaction.registry import MODELS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmn_plugin.models.necks import MomentEncoder, moment_encoder
from mmn_plugin.structures import MomentGrid

# num_clips, pooling_counts, kernel_size, num_layers of the three benchmarks' configs
SIZES = {
    'tacos': (128, [15, 8, 8, 8], 5, 8),
    'charades_sta': (16, [15], 5, 8),
    'activitynet': (64, [15, 8, 8], 9, 4),
}
CHANNELS = 8


def encoders(name, channels=CHANNELS, dtype=torch.float32, training=True):
    """A dense and a sparse encoder of the same weights and statistics, and their grid."""
    num_clips, counts, kernel_size, num_layers = SIZES[name]
    grid = MomentGrid(num_clips, counts)
    torch.manual_seed(0)
    dense, sparse = (MomentEncoder(grid, channels, kernel_size, num_layers, mode).to(dtype)
                     for mode in ('dense', 'sparse'))
    for norm in dense.bn:
        norm.running_mean.normal_(0, .1)
        norm.running_var.uniform_(.5, 1.5)
        torch.nn.init.uniform_(norm.weight, .5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, .1)
    sparse.load_state_dict(dense.state_dict())
    return dense.train(training), sparse.train(training), grid


def passes(encoder, moments, weights, autocast=False):
    """Result and gradients of one pass forward and backward."""
    moments = moments.clone().requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        result = encoder(moments)
    (result.to(weights.dtype) * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return result.detach(), dict(moments=moments.grad, **gradients)


def relative(actual, expected):
    """Largest difference, of the largest value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def inputs(grid, batch_size=2, channels=CHANNELS, dtype=torch.float32):
    """Moments, and the gradient of their encoding."""
    generator = torch.Generator().manual_seed(1)
    shape = batch_size, channels, grid.num_moments
    return (torch.randn(shape, generator=generator).to(dtype),
            torch.randn(shape, generator=generator).to(dtype))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(('dtype', 'forward', 'backward'),
                         [(torch.float32, 1e-5, 1e-4), (torch.float64, 1e-11, 1e-11)])
@pytest.mark.parametrize('name', SIZES)
def test_it_is_the_dense_encoder_forward_and_backward(name, dtype, forward, backward, training):
    dense, sparse, grid = encoders(name, dtype=dtype, training=training)
    moments, weights = inputs(grid, dtype=dtype)
    expected, expected_gradients = passes(dense, moments, weights)
    actual, gradients = passes(sparse, moments, weights)
    assert relative(actual, expected) < forward
    biases = {f'convs.{layer}.bias' for layer in range(len(dense.convs))}
    for key, gradient in expected_gradients.items():
        if training and key in biases:  # zero but for rounding: BatchNorm takes the bias away
            assert gradients[key].abs().max() <= gradient.abs().max()
        else:
            assert relative(gradients[key], gradient) < backward, key
    for (key, value), other in zip(dense.named_buffers(), sparse.buffers(), strict=True):
        torch.testing.assert_close(other, value, rtol=forward, atol=forward, msg=key)


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', SIZES)
def test_bfloat16_is_as_close_to_float32_as_the_dense_encoder(name, training, fast, monkeypatch):
    monkeypatch.setattr(moment_encoder, 'fast_products', lambda dtype, device: fast)
    dense, sparse, grid = encoders(name, channels=32, training=training)
    moments, weights = inputs(grid, channels=32)
    expected = passes(copy.deepcopy(dense), moments, weights)
    of_dense = passes(dense, moments, weights, autocast=True)
    of_sparse = passes(sparse, moments, weights, autocast=True)

    def distance(one, other):
        return ((one.float() - other).norm() / other.norm()).item()

    assert of_sparse[0].dtype == torch.bfloat16
    assert sparse.plan(torch.bfloat16, 'cpu').forward[0].transform.tile == (1 if fast else 3)
    assert distance(of_sparse[0], expected[0]) < 1.25 * distance(of_dense[0], expected[0])
    for key in ('moments', 'convs.0.weight'):
        theirs = distance(of_dense[1][key], expected[1][key])
        assert distance(of_sparse[1][key], expected[1][key]) < 1.5 * theirs, key


@pytest.mark.parametrize('moment_map', ['MomentMapPool', 'MomentMapConv'])
def test_the_neck_gives_the_same_embeddings_with_either_map(moment_map):
    grid = MomentGrid(16, [15])
    embeddings = []
    for mode in ('dense', 'sparse'):
        torch.manual_seed(0)
        neck = MODELS.build(dict(
            type='MomentMapNeck', grid=grid, channels=8, embed_channels=4, kernel_size=5,
            num_layers=2, moment_map=dict(type=moment_map), conv_mode=mode))
        torch.manual_seed(1)
        embeddings.append(neck(torch.randn(3, 8, 16)))
    for space in ('iou', 'contrastive'):
        assert relative(embeddings[1][space], embeddings[0][space]) < 1e-5


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any result of any operation has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if torch.is_tensor(value):
                self.elements = max(self.elements, value.numel())
        return result


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', SIZES)
def test_no_tensor_has_the_size_of_the_grown_map(name, training):
    dense, sparse, grid = encoders(name, training=training)
    moments, weights = inputs(grid)
    largest = {}
    for encoder in (dense, sparse):
        with LargestTensor() as record:
            passes(encoder, moments, weights)
        largest[encoder.conv_mode] = record.elements
    grown = len(moments) * CHANNELS * sparse._weight(0).numel()
    assert largest['dense'] >= grown
    assert largest['sparse'] < grown


@pytest.mark.parametrize('name', SIZES)
def test_training_keeps_one_activation_per_layer(name):
    dense, sparse, grid = encoders(name)
    moments, _ = inputs(grid)
    kept = {}
    for encoder in (dense, sparse):
        storages = {}

        def keep(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            encoder(moments)
        weights = {parameter.data_ptr() for parameter in encoder.parameters()}
        kept[encoder.conv_mode] = sum(size for storage, size in storages.items()
                                      if storage not in weights)
    plan = sparse.plan(torch.float32, 'cpu')
    cells = len(plan.cells[0]) + sum(map(len, plan.cells[1:]))
    assert kept['sparse'] < 1.1 * 4 * CHANNELS * len(moments) * cells
    assert kept['sparse'] < 0.3 * kept['dense']


def test_it_computes_the_cells_that_moments_depend_on():
    shares = {}
    for name in SIZES:
        _, sparse, _ = encoders(name, channels=1)
        shares[name] = [round(100 * (1 - sparse.train(mode).plan(torch.float32, 'cpu').share()))
                        for mode in (True, False)]
    # counted cell by cell when this was planned
    assert shares == dict(tacos=[44, 54], charades_sta=[45, 51], activitynet=[35, 50])


@pytest.mark.parametrize('batch_size', [1, 3, 7])
def test_the_batch_may_have_any_size(batch_size):
    dense, sparse, grid = encoders('charades_sta')
    moments, weights = inputs(grid, batch_size)
    assert relative(passes(sparse, moments, weights)[0], passes(dense, moments, weights)[0]) < 1e-5


def test_a_plain_average_of_the_statistics_is_taken_where_momentum_is_none():
    dense, sparse, grid = encoders('charades_sta', dtype=torch.float64)
    for encoder in (dense, sparse):
        for norm in encoder.bn:
            norm.momentum = None
            norm.reset_running_stats()
        for factor in (1, 3):
            encoder(factor * inputs(grid, dtype=torch.float64)[0])
    for one, other in zip(dense.bn, sparse.bn, strict=True):
        torch.testing.assert_close(other.running_var, one.running_var)
        assert other.num_batches_tracked == one.num_batches_tracked == 2


def test_it_can_be_trained_after_it_ran_in_inference_mode():
    _, fresh, grid = encoders('charades_sta', channels=9)
    used = copy.deepcopy(fresh)
    moments, weights = inputs(grid, channels=9)
    for training in (False, True):
        with torch.inference_mode():
            used.train(training)(moments)
    used.load_state_dict(fresh.state_dict())
    _, expected = passes(fresh, moments, weights)
    _, actual = passes(used, moments, weights)
    assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_an_encoder_that_has_run_can_be_copied_and_pickled():
    _, sparse, grid = encoders('charades_sta', training=False)
    moments, _ = inputs(grid)
    expected = sparse(moments)
    assert torch.equal(copy.deepcopy(sparse)(moments), expected)
    assert torch.equal(pickle.loads(pickle.dumps(sparse))(moments), expected)


def test_backward_inside_autocast_has_the_gradients_of_backward_outside():
    _, sparse, grid = encoders('charades_sta')
    moments, weights = inputs(grid)
    _, expected = passes(sparse, moments, weights)
    sparse.zero_grad()
    moments.requires_grad_()
    result = sparse(moments)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result.backward(weights)
    assert torch.equal(moments.grad, expected['moments'])
    assert all(torch.equal(parameter.grad, expected[name])
               for name, parameter in sparse.named_parameters())


def test_weights_may_be_of_half_precision_themselves():
    dense, sparse, grid = encoders('charades_sta', training=False)
    moments, weights = inputs(grid)
    expected = dense(moments)
    for dtype in (torch.bfloat16, torch.float16):
        actual, _ = passes(copy.deepcopy(sparse).to(dtype), moments.to(dtype), weights.to(dtype))
        assert relative(actual.float(), expected) < 0.02


@pytest.mark.parametrize('kernel_size', [1, 2, 7])
def test_kernels_of_other_sizes(kernel_size):
    grid = MomentGrid(16, [7, 4])
    torch.manual_seed(0)
    dense, sparse = (MomentEncoder(grid, 6, kernel_size, 2, mode) for mode in ('dense', 'sparse'))
    sparse.load_state_dict(dense.state_dict())
    moments, weights = inputs(grid, channels=6)
    expected, expected_gradients = passes(dense, moments, weights)
    actual, gradients = passes(sparse, moments, weights)
    assert relative(actual, expected) < 1e-5
    for key in ('moments', 'convs.0.weight', 'convs.1.weight'):
        assert relative(gradients[key], expected_gradients[key]) < 1e-4


@pytest.fixture
def said(monkeypatch):
    """What the encoder logs."""
    texts = []
    monkeypatch.setattr('mmn_plugin.models.necks.moment_encoder.print_log',
                        lambda text, *_: texts.append(text))
    return texts


@pytest.mark.parametrize(('channels', 'device', 'text'), [
    (64, 'cpu', 'dense, which is faster with fewer than 128 channels'),
    (128, 'cpu', 'sparse'),
    (128, 'meta', "dense on 'meta', where the sparse one is not measured")])
def test_auto_takes_the_faster_one_and_says_which(channels, device, text, said):
    grid = MomentGrid(8, [3])
    encoder = MomentEncoder(grid, channels, kernel_size=3, num_layers=2)
    moments = torch.empty(1, channels, grid.num_moments, device=device)
    for _ in range(2):
        assert encoder.computes_sparse(moments) == (text == 'sparse')
    assert len(said) == 1
    assert text in said[0]


def test_auto_is_dense_where_it_is_traced_or_compiled(said):
    grid = MomentGrid(8, [3])
    encoder = MomentEncoder(grid, 128, kernel_size=3, num_layers=2).eval()
    moments = torch.randn(1, 128, grid.num_moments)
    torch.jit.trace(encoder, moments, check_trace=False)
    assert 'dense, since it is being compiled or exported' in said[-1]
    compiled = torch.compile(encoder, backend='eager')
    assert relative(compiled(moments), encoder(moments)) < 1e-5
    assert said[-1] == 'Moment encoder: sparse'  # of the call that is not compiled


def test_a_compiled_model_may_be_sparse():
    _, sparse, grid = encoders('charades_sta', training=False)
    moments, _ = inputs(grid)
    compiled = torch.compile(copy.deepcopy(sparse), backend='eager')
    assert torch.equal(compiled(moments), sparse(moments))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="'tiled' is none of auto, dense, sparse"):
        MomentEncoder(MomentGrid(8, [3]), 4, kernel_size=3, num_layers=2, conv_mode='tiled')
