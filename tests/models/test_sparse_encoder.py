"""The sparse moment encoder against the dense one."""

import copy
import pickle

import pytest
import torch

from mmn_plugin.models.necks import MomentEncoder, moment_map_neck, sparse_conv
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
    dense, sparse = (
        MomentEncoder(grid, channels, kernel_size, num_layers, mode).to(dtype)
        for mode in ('dense', 'sparse')
    )
    for norm in dense.bn:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.1)
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
    return (
        torch.randn(shape, generator=generator).to(dtype),
        torch.randn(shape, generator=generator).to(dtype),
    )


def assert_same(dense, sparse, moments, weights):
    """Result, gradients and statistics of two encoders in float64, where no ReLU's gate differs."""
    (actual, gradients), (expected, of_dense) = (
        passes(encoder, moments, weights) for encoder in (sparse, dense)
    )
    assert relative(actual, expected) < 1e-11
    for key, gradient in of_dense.items():
        if dense.training and key.startswith('convs') and key.endswith('bias'):
            assert gradients[key].eq(0).all(), key  # BatchNorm takes the bias away
        else:
            assert relative(gradients[key], gradient) < 1e-11, key
    for (key, value), other in zip(dense.named_buffers(), sparse.buffers(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-11, atol=1e-11, msg=key)


@pytest.mark.parametrize('tile', [1, 3])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', SIZES)
def test_it_is_the_dense_encoder_forward_and_backward(name, training, tile, monkeypatch):
    dense, sparse, grid = encoders(name, dtype=torch.float64, training=training)
    assert sparse.tile(torch.float64, 'cpu') == 3
    monkeypatch.setattr(sparse, 'tile', lambda *_: tile)  # 1 is that of 16 bits
    assert_same(dense, sparse, *inputs(grid, dtype=torch.float64))
    # In float32 a ReLU's input near 0 may fall on either side, so gradients are not compared; and
    # with the exact result, as a dense convolution rounds more or less on different processors.
    moments, _ = inputs(grid)
    assert relative(sparse.float()(moments), dense(moments.double())) < 1e-5


@pytest.mark.parametrize(
    ('elements', 'windows', 'sizes'),
    [(25 * 256, 2**20, [25]), (7 * 256, 4000, [6, 6, 7, 6]), (1, 1, [1] * 25)],
)
@pytest.mark.parametrize('training', [True, False])
def test_any_number_of_groups_of_weights_gives_the_same(
    elements, windows, sizes, training, monkeypatch
):
    """At few channels all weights, and all windows of a chunk, would be held at a time."""
    groups, counts = sparse_conv._Products.groups, set()

    def record(products):
        found = groups(products)
        counts.add(tuple(group.stop - group.start for group in found))
        return found

    monkeypatch.setattr(sparse_conv._Products, 'groups', record)
    monkeypatch.setattr(sparse_conv, 'WEIGHT_ELEMENTS', elements)
    monkeypatch.setattr(sparse_conv, 'WINDOW_ELEMENTS', windows)
    dense, sparse, grid = encoders('charades_sta', dtype=torch.float64, training=training)
    assert_same(dense, sparse, *inputs(grid, dtype=torch.float64))
    assert counts == {tuple(sizes)}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('fast', [True, False])
def test_bfloat16_is_as_close_to_exact_as_the_dense_encoder(fast, training, monkeypatch):
    monkeypatch.setattr(moment_map_neck, 'fast_products', lambda dtype, device: fast)
    dense, sparse, grid = encoders('charades_sta', training=training)
    assert sparse.tile(torch.bfloat16, 'cpu') == (1 if fast else 3)
    moments, weights = inputs(grid)
    exact, exact_gradients = passes(
        copy.deepcopy(dense).double(), moments.double(), weights.double()
    )
    errors = {}
    for encoder in (dense, sparse):
        result, gradients = passes(encoder, moments, weights, autocast=True)
        pairs = (result, exact), (gradients['convs.0.weight'], exact_gradients['convs.0.weight'])
        errors[encoder] = [((one - other).norm() / other.norm()).item() for one, other in pairs]
    assert result.dtype == torch.bfloat16
    for of_sparse, of_dense in zip(errors[sparse], errors[dense], strict=True):
        assert of_sparse < 1.25 * of_dense


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
        kept[encoder.conv_mode] = sum(
            size for storage, size in storages.items() if storage not in weights
        )
    plan = sparse.plan(torch.float32, torch.device('cpu'))
    cells = len(plan.cells[0]) + sum(map(len, plan.cells[1:]))
    assert kept['sparse'] < 1.1 * 4 * CHANNELS * len(moments) * cells
    assert kept['sparse'] < 0.3 * kept['dense']


def test_it_computes_the_cells_that_moments_depend_on():
    left_out = {}
    for name in SIZES:
        _, sparse, _ = encoders(name, channels=1)
        for mode in (True, False):
            cells = sparse.train(mode).plan(torch.float32, torch.device('cpu')).cells[1:]
            share = sum(map(len, cells)) / sum(one.size**2 for one in cells)
            left_out.setdefault(name, []).append(round(100 * (1 - share)))
    # counted cell by cell when this was planned
    assert left_out == dict(tacos=[44, 54], charades_sta=[45, 51], activitynet=[35, 50])


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


def test_it_can_be_copied_pickled_and_trained_after_it_ran_in_inference_mode():
    _, fresh, grid = encoders('charades_sta', channels=9)
    used = copy.deepcopy(fresh)
    moments, weights = inputs(grid, channels=9)
    for training in (False, True):
        with torch.inference_mode():
            used.train(training)(moments)
    used.load_state_dict(fresh.state_dict())
    _, expected = passes(fresh, moments, weights)
    for one in (copy.deepcopy(used), pickle.loads(pickle.dumps(used)), used):
        _, actual = passes(one, moments, weights)
        assert all(torch.equal(actual[key], expected[key]) for key in expected)


def test_weights_may_be_of_half_precision_themselves():
    dense, sparse, grid = encoders('charades_sta', training=False)
    moments, weights = inputs(grid)
    expected = dense(moments)
    for dtype in (torch.bfloat16, torch.float16):
        actual, _ = passes(copy.deepcopy(sparse).to(dtype), moments.to(dtype), weights.to(dtype))
        assert relative(actual.float(), expected) < 0.02


@pytest.mark.parametrize(('kernel_size', 'batch_size'), [(1, 2), (2, 1), (7, 7)])
def test_kernels_and_batches_of_other_sizes(kernel_size, batch_size):
    grid = MomentGrid(16, [7, 4])
    torch.manual_seed(0)
    dense, sparse = (
        MomentEncoder(grid, 6, kernel_size, 2, mode).double() for mode in ('dense', 'sparse')
    )
    sparse.load_state_dict(dense.state_dict())
    assert_same(dense, sparse, *inputs(grid, batch_size, channels=6, dtype=torch.float64))


@pytest.fixture
def said(monkeypatch):
    """What the encoder logs."""
    texts = []
    monkeypatch.setattr(
        'mmn_plugin.models.necks.moment_map_neck.print_log', lambda text, *_: texts.append(text)
    )
    return texts


@pytest.mark.parametrize(
    ('channels', 'device', 'text'),
    [
        (64, 'cpu', 'dense, which is faster with fewer than 128 channels'),
        (128, 'cpu', 'sparse'),
        (128, 'meta', "dense on 'meta', where the sparse one is not measured"),
    ],
)
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
    encoder.conv_mode = 'sparse'
    assert torch.equal(torch.compile(encoder, backend='eager')(moments), encoder(moments))
