"""What the moment encoder computes in a step of training, counted without a clock or a GPU."""

import torch
from mmengine.config import Config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmn_plugin.models.necks import MomentEncoder
from mmn_plugin.structures import MomentGrid

from .tables import table

CONFIGS = {
    'TACoS': 'mmn_tacos.py',
    'Charades-STA': 'mmn_charades.py',
    'ActivityNet Captions': 'mmn_activitynet.py',
}
STRIP_ROWS = (4, 8, 16)
WAYS = {
    'dense': (dict(conv_mode='dense'), torch.float32),
    **{
        f'strips of {rows} rows': (dict(conv_mode='strips', strip_rows=rows), torch.float32)
        for rows in STRIP_ROWS
    },
    'cells, float32': (dict(conv_mode='sparse'), torch.float32),
    'cells, 16 bits': (dict(conv_mode='sparse'), torch.bfloat16),
}
ALLOCATING = ('empty', 'new_empty', 'empty_like', 'empty_strided', 'new_empty_strided')


class Operators(TorchDispatchMode):
    """Counts the operators that compute, each at least one kernel on a GPU.

    Views and allocations are none; the backward pass of a convolution is one per gradient.
    """

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = (each.alias_info for each in func._schema.returns)
        is_view = any(alias is not None and not alias.is_write for alias in returned)
        if func.overloadpacket is torch.ops.aten.convolution_backward:
            self.count += sum(args[-1])
        elif not is_view and func._schema.name.removeprefix('aten::') not in ALLOCATING:
            self.count += 1
        return func(*args, **(kwargs or {}))


def count(config: Config, settings: dict, dtype: torch.dtype) -> dict[str, int]:
    """Multiply-adds and operators of a config's encoder, forward and backward."""
    grid, neck = MomentGrid(**config.model.grid), config.model.neck
    shape = neck.channels, neck.kernel_size, neck.num_layers
    encoder = MomentEncoder(grid, *shape, **settings).to('meta')
    videos = config.train_dataloader.batch_size
    moments = torch.empty(videos, neck.channels, grid.num_moments, dtype=dtype, device='meta')
    with FlopCounterMode(display=False) as flops, Operators() as operators:
        encoder(moments.requires_grad_()).sum().backward()
    return dict(multiply_adds=flops.get_total_flops() // 2, operators=operators.count)


def encoder_counts() -> dict:
    """Every way to compute the encoder of the three benchmarks' configs, at their batch sizes."""
    counts = {}
    for name, file in CONFIGS.items():
        config = Config.fromfile(f'mmn_plugin::{file}')
        rows = {way: count(config, *how) for way, how in WAYS.items()}
        counts[name] = dict(videos=config.train_dataloader.batch_size, ways=rows)
    return dict(counts=counts)


def render_encoder_counts(result: dict) -> str:
    """Multiply-adds, absolute and of the dense encoder's, and operators."""
    header, rows = ['multiply-adds (operators)'], {way: [] for way in WAYS}
    for name, counted in result['counts'].items():
        header.append(f'{name}, {counted["videos"]} videos')
        dense = counted['ways']['dense']['multiply_adds']
        for way, found in counted['ways'].items():
            share = found['multiply_adds'] / dense
            amount = f'{found["multiply_adds"] / 1e12:.2f} T, {share:.0%}'
            rows[way].append(f'{amount} ({found["operators"]:,})')
    return table(header, [[way, *cells] for way, cells in rows.items()])
