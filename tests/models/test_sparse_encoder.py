"""The sparse moment encoder against the dense one."""

import copy
import pickle

import pytest
import torch
from helpers.moment_encoders import (
    CHANNELS,
    SIZES,
    assert_same,
    encoders,
    inputs,
    kept_bytes,
    passes,
    relative,
)

from mmn_plugin.models.necks import MomentEncoder, moment_encoder, sparse_conv
from mmn_plugin.structures import MomentGrid


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
    groups, counts = sparse_conv.TileProducts.groups, set()

    def record(products):
        found = groups(products)
        counts.add(tuple(group.stop - group.start for group in found))
        return found

    monkeypatch.setattr(sparse_conv.TileProducts, 'groups', record)
    monkeypatch.setattr(sparse_conv, 'WEIGHT_ELEMENTS', elements)
    monkeypatch.setattr(sparse_conv, 'WINDOW_ELEMENTS', windows)
    dense, sparse, grid = encoders('charades_sta', dtype=torch.float64, training=training)
    assert_same(dense, sparse, *inputs(grid, dtype=torch.float64))
    assert counts == {tuple(sizes)}


def encoded(encoder, moments, weights, amp):
    """Result, and the gradient of the first weight, as float64."""
    result, gradients = passes(encoder, moments, weights, autocast=amp)
    assert (result.dtype == torch.bfloat16) == amp
    return [value.double() for value in (result, gradients['convs.0.weight'])]


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(('mode', 'tile'), [('sparse', 1), ('sparse', 3), ('strips', 3)])
def test_bfloat16_is_as_close_to_exact_as_the_dense_encoder(mode, tile, training, monkeypatch):
    monkeypatch.setattr(moment_encoder, 'fast_products', lambda dtype, device: tile == 1)
    settings = dict(conv_mode='dense'), dict(conv_mode=mode)
    dense, other, grid = encoders('charades_sta', training=training, settings=settings)
    assert other.tile(torch.bfloat16, 'cpu') == tile
    moments, weights = inputs(grid)
    exact = encoded(copy.deepcopy(dense).double(), moments.double(), weights.double(), False)
    errors = [
        [(one - other).norm() / other.norm() for one, other in zip(found, exact, strict=True)]
        for found in (encoded(encoder, moments, weights, True) for encoder in (dense, other))
    ]
    for of_dense, of_other in zip(*errors, strict=True):
        assert 0 < of_other < 1.25 * of_dense


@pytest.mark.parametrize('name', SIZES)
def test_training_keeps_one_activation_per_layer(name):
    dense, sparse, grid = encoders(name)
    moments, _ = inputs(grid)
    kept = {}
    for encoder in (dense, sparse):
        kept[encoder.conv_mode] = kept_bytes(encoder, moments)
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


@pytest.mark.parametrize('mode', ['sparse', 'strips'])
def test_it_can_be_copied_pickled_and_trained_after_it_ran_in_inference_mode(mode):
    settings = dict(conv_mode='dense'), dict(conv_mode=mode)
    _, fresh, grid = encoders('charades_sta', channels=9, settings=settings)
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


@pytest.mark.parametrize('mode', ['sparse', 'strips'])
def test_weights_may_be_of_half_precision_themselves(mode):
    settings = dict(conv_mode='dense'), dict(conv_mode=mode)
    dense, other, grid = encoders('charades_sta', training=False, settings=settings)
    moments, weights = inputs(grid)
    expected = dense(moments)
    for dtype in (torch.bfloat16, torch.float16):
        actual, _ = passes(copy.deepcopy(other).to(dtype), moments.to(dtype), weights.to(dtype))
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


@pytest.mark.parametrize(
    ('channels', 'device', 'text'),
    [
        (64, 'cpu', 'dense, which is faster with fewer than 128 channels'),
        (128, 'cpu', 'sparse, which is the fastest on a CPU'),
        (128, 'meta', 'dense, as there is too little for strips to save, which was counted'),
    ],
)
def test_auto_takes_the_faster_one_and_says_which(channels, device, text, said):
    grid = MomentGrid(8, [3])
    encoder = MomentEncoder(grid, channels, kernel_size=3, num_layers=2)
    moments = torch.empty(1, channels, grid.num_moments, device=device)
    for _ in range(2):
        assert encoder.mode_for(moments) == text.split(',')[0]
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
    assert (
        said[-1] == 'Moment encoder: sparse, which is the fastest on a CPU'
    )  # of the call that is not compiled
    encoder.conv_mode = 'sparse'
    assert torch.equal(torch.compile(encoder, backend='eager')(moments), encoder(moments))


def count_transforms(monkeypatch):
    """Grows by one whenever a kernel is transformed."""
    counted, transformed = [], sparse_conv.TileProducts.transformed

    def count(products, *args):
        counted.append(1)
        return transformed(products, *args)

    monkeypatch.setattr(sparse_conv.TileProducts, 'transformed', count)
    return counted


CHANGES = {
    'in place': lambda encoder: encoder.convs[0].weight.add_(0.1),
    'through data': lambda encoder: encoder.convs[0].weight.data.add_(0.1),
    'one value through data': lambda encoder: encoder.convs[0].weight.data[1, 1, 0, 0].fill_(7),
    'by an optimizer': lambda encoder: step(encoder, foreach=True),
    'by a fused optimizer': lambda encoder: step(encoder, fused=True),
    'by other weights': lambda encoder: encoder.load_state_dict(
        {key: 1.1 * value for key, value in encoder.state_dict().items()}
    ),
    'by their precision': lambda encoder: encoder.bfloat16().float(),
}


def step(encoder, **how):
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(encoder.parameters(), **how).step()


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_kernels_transformed_for_inference_are_used_until_the_weights_change(change, monkeypatch):
    _, encoder, grid = encoders('charades_sta', training=False)
    counted, moments = count_transforms(monkeypatch), inputs(grid)[0]
    with torch.no_grad():
        first, second, third = (encoder(moments) for _ in range(3))
        assert len(counted) == 2 * len(encoder.convs)
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        change(encoder)
        expected = copy.deepcopy(encoder)(moments)
        assert not torch.equal(expected, first)
        for _ in range(3):
            assert torch.equal(encoder(moments), expected)


def test_kept_kernels_go_with_training_and_are_no_part_of_a_copy(monkeypatch):
    _, encoder, grid = encoders('charades_sta', training=False)
    moments = inputs(grid)[0]
    with torch.inference_mode():
        size = len(pickle.dumps(encoder))
        for _ in range(2):
            encoder(moments)
        assert encoder._kept
        assert len(pickle.dumps(encoder)) < size + 1000
        assert copy.deepcopy(encoder)._kept == []
    encoder(moments).sum().backward()
    assert encoder._kept == []
    monkeypatch.setattr(moment_encoder, 'KEPT_BYTES', 8 * 100 * CHANNELS**2 * 4 - 1)
    with torch.no_grad():
        encoder(moments)
    assert encoder._kept == []
