"""The moment map and its convolutions against their definitions."""

import pytest
import torch
import torch.nn.functional as F

from mmn_plugin.models.clip_encoder import ClipEncoder
from mmn_plugin.models.necks import (
    MomentEncoder,
    MomentMapConv,
    MomentMapNeck,
    MomentMapPool,
)
from mmn_plugin.models.necks.tower_pool import moment_means
from mmn_plugin.structures import MomentGrid

GRIDS = [(16, [15]), (32, [7, 4, 3]), (8, [0, 2])]


@pytest.mark.parametrize('shape', GRIDS)
def test_a_pooled_moment_is_the_maximum_of_its_clips(shape):
    grid = MomentGrid(*shape)
    clips = torch.randn(2, 3, grid.num_clips)
    moments = MomentMapPool(grid, 3)(clips)
    for p, (start, end) in enumerate(zip(grid.starts, grid.ends, strict=True)):
        assert torch.equal(moments[..., p], clips[..., start : end + 1].amax(-1))


def test_a_convolved_moment_is_the_convolution_of_the_two_it_is_made_of():
    grid = MomentGrid(6, [2])
    module = MomentMapConv(grid, 3)
    clips = torch.randn(1, 3, 6)
    cell = {
        cell: p for p, cell in enumerate(zip(grid.starts.tolist(), grid.ends.tolist(), strict=True))
    }
    moments = module(clips)
    shorter = torch.stack([moments[..., cell[1, 2]], moments[..., cell[2, 3]]], -1)
    torch.testing.assert_close(moments[..., cell[1, 3]], module.convs[1](shorter)[..., 0])


def encode_by_definition(encoder, grid, moments):
    """Layer by layer on the dense map, each cell's weight counted one by one."""
    layers, kernel = len(encoder.convs), encoder.convs[0].kernel_size[0]
    pad = (kernel - 1) * layers // 2
    hidden = F.pad(grid.to_map(moments), [pad] * 4)
    valid = F.pad(grid.mask, [pad] * 4)
    for conv, norm in zip(encoder.convs, encoder.bn, strict=True):
        size = hidden.shape[-1] - kernel + 1
        counts = torch.tensor(
            [
                [int(valid[i : i + kernel, j : j + kernel].sum()) for j in range(size)]
                for i in range(size)
            ]
        )
        hidden = norm(F.conv2d(hidden, conv.weight, conv.bias)).relu()
        hidden = torch.where(counts > 0, hidden / counts.clamp(min=1), 0.0)
        valid = counts > 0
    return hidden[..., grid.mask]


@pytest.mark.parametrize('training', [True, False])
def test_the_encoder_averages_over_the_valid_cells_under_each_kernel(training):
    grid = MomentGrid(8, [3, 1])
    encoder = MomentEncoder(grid, channels=4, kernel_size=3, num_layers=4).double()
    encoder.train(training)
    for norm in encoder.bn:
        norm.momentum = 0.0  # the second pass must see the same statistics
    moments = torch.randn(2, 4, grid.num_moments, dtype=torch.float64)
    torch.testing.assert_close(
        encoder(moments), encode_by_definition(encoder, grid, moments), rtol=1e-6, atol=1e-7
    )


def test_kernels_that_cannot_be_padded_evenly_and_unknown_modes_are_refused():
    with pytest.raises(ValueError, match='odd kernel'):
        MomentEncoder(MomentGrid(8, [3]), 4, kernel_size=4, num_layers=1)
    with pytest.raises(ValueError, match="'tiled' is none of auto, dense, sparse, strips"):
        MomentEncoder(MomentGrid(8, [3]), 4, kernel_size=3, num_layers=2, conv_mode='tiled')


@pytest.mark.parametrize('shape', GRIDS)
def test_features_are_added_to_the_contrastive_space_and_to_no_other(shape):
    grid, rows = MomentGrid(*shape), torch.randn(2, 2 * shape[0], 6)
    plain = ClipEncoder(6, 4, 2, 2)
    encoder = ClipEncoder(6, 4, 2, 2, keep_features=True)
    necks = [MomentMapNeck(grid, 4, 6, 3, 2, features=size).eval() for size in (0, 6)]
    encoder.load_state_dict(plain.state_dict())
    necks[1].load_state_dict(necks[0].state_dict(), strict=False)
    without, found = necks[0](plain(rows)), necks[1](encoder(rows))
    assert torch.equal(found['iou'], without['iou'])
    means = F.normalize(moment_means(rows, grid), dim=-1)
    torch.testing.assert_close(found['contrastive'] - without['contrastive'], means)
    found['contrastive'].sum().backward()
    assert necks[1].fc_features.weight.grad.abs().max() > 0
