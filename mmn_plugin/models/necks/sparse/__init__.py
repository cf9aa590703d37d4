"""The moment encoder's convolutions on the cells that exist."""

from .cell_set import CellSet
from .conv_plan import ConvPlan
from .encoder_plan import EncoderPlan
from .fast_products import fast_products
from .sparse_conv import sparse_conv, workspaces
from .sparse_norm import sparse_norm
from .tile_transform import TileTransform

__all__ = [
    'CellSet',
    'ConvPlan',
    'EncoderPlan',
    'TileTransform',
    'fast_products',
    'sparse_conv',
    'sparse_norm',
    'workspaces',
]
