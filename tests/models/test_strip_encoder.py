"""The moment encoder in strips of rows against the dense one."""

import numpy as np
import pytest
import torch
from helpers.away_device import AWAY, AwayDevice
from helpers.moment_encoders import (
    CHANNELS,
    SIZES,
    assert_same,
    encoders,
    inputs,
    kept_bytes,
)

from mmn_plugin.models.necks import MomentEncoder
from mmn_plugin.models.necks.sparse_conv import sparse_conv
from mmn_plugin.models.necks.sparse_plan import CellSet
from mmn_plugin.models.necks.strip_conv import StripPlan, StripProducts, cut_strips, pack_strips
from mmn_plugin.structures import MomentGrid

DENSE, STRIPS = dict(conv_mode='dense'), dict(conv_mode='strips')
CPU = torch.device('cpu')


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', SIZES)
def test_it_is_the_dense_encoder_forward_and_backward(name, training):
    dense, strips, grid = encoders(
        name, dtype=torch.float64, training=training, settings=(DENSE, STRIPS)
    )
    assert_same(dense, strips, *inputs(grid, dtype=torch.float64))


@pytest.mark.parametrize('grid', [(8, [3, 1]), (7, [6]), (9, [0, 2]), (2, [1])])
@pytest.mark.parametrize('kernel_size', range(1, 10))
def test_kernels_layers_strips_and_batches_of_any_size(grid, kernel_size):
    for layers in range(1, 5):
        if (kernel_size - 1) * layers % 2 == 0:
            settings = DENSE, dict(STRIPS, strip_rows=1 + (kernel_size + layers) % 5)
            size = *grid, kernel_size, layers
            for training in (True, False):
                dense, strips, made = encoders(size, 3, torch.float64, training, settings)
                batch = 2 + layers % 2
                assert_same(dense, strips, *inputs(made, batch, 3, torch.float64))


@pytest.mark.parametrize('memory_format', ['contiguous_format', 'channels_last'])
def test_its_gradients_are_those_of_finite_differences(memory_format):
    mask = MomentGrid(5, [2, 1]).mask.numpy()
    inputs, outputs = CellSet(mask), CellSet(np.ones((5, 5), dtype=bool))
    settings = dict(kernel_size=3, rows=2, device=CPU)
    plans = (
        StripPlan(inputs, outputs, 1, **settings),
        StripPlan(outputs, inputs, 1, True, **settings),
    )

    def products(*args):
        return StripProducts(*args, getattr(torch, memory_format))

    def convolve(values, weight):
        rows = torch.cat([values, values.new_zeros(1, 2, 2)])
        return sparse_conv(rows, weight, *plans, products=products)[:-1]

    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((len(inputs), 2, 2), (3, 2, 3, 3))
    ]
    assert torch.autograd.gradcheck(convolve, given)


def test_strips_hold_all_active_cells_once_and_do_not_touch():
    cells = CellSet(MomentGrid(64, [15, 8, 8]).mask.numpy())
    strips, bands, width = pack_strips(cut_strips(cells, 4), gap=8)
    held = np.zeros((64 + 4, 64), dtype=int)
    taken = np.zeros((bands, width + 8), dtype=int)
    for strip in strips:
        held[strip.row : strip.row + 4, strip.column : strip.column + strip.width] += 1
        taken[strip.band, strip.place : strip.place + strip.width + 8] += 1
    assert (held[cells.rows, cells.columns] == 1).all()
    assert taken.max() == 1
    assert bands < len(strips) / 1.5  # those of the short rows share a band


def test_training_keeps_one_activation_per_layer():
    _, strips, grid = encoders('activitynet', settings=(DENSE, STRIPS))
    moments, _ = inputs(grid)
    cells = sum(map(len, strips.plan(torch.float32, CPU, 'strips').cells))
    assert kept_bytes(strips, moments) < 1.1 * 4 * CHANNELS * len(moments) * cells


def test_auto_takes_strips_away_from_the_cpu_where_they_save_enough(said):
    num_clips, counts, kernel_size, layers = SIZES['charades_sta']
    grid = MomentGrid(num_clips, counts)
    encoder = MomentEncoder(grid, 512, kernel_size, layers).to('meta')
    for batch in (1, 12, 12):
        encoder(torch.empty(batch, 512, grid.num_moments, device='meta'))
    assert [text.split(',')[0] for text in said] == [
        'Moment encoder: dense',
        'Moment encoder: strips',
    ]
    assert all("counted, not timed on 'meta'" in text for text in said)


def test_a_step_does_not_wait_for_the_device():
    num_clips, counts, kernel_size, layers = SIZES['charades_sta']
    grid = MomentGrid(num_clips, counts)
    encoder = MomentEncoder(grid, 4, kernel_size, layers, **STRIPS).to(AWAY)
    moments = torch.randn(2, 4, grid.num_moments, device=AWAY, requires_grad=True)
    encoder(moments).sum().backward()  # makes the plans
    with AwayDevice() as device:
        encoder(moments).sum().backward()
    assert device.waits == []
