"""Necks: from clips to moments, or to embeddings of their own."""

from .frame_neck import FrameNeck
from .moment_map_neck import MomentEncoder, MomentMap, MomentMapConv, MomentMapNeck, MomentMapPool
from .sparse_conv import fast_products, sparse_conv, sparse_norm, workspaces
from .sparse_plan import CellSet, ConvPlan, EncoderPlan, TileTransform

__all__ = [
    'CellSet',
    'ConvPlan',
    'EncoderPlan',
    'FrameNeck',
    'MomentEncoder',
    'MomentMap',
    'MomentMapConv',
    'MomentMapNeck',
    'MomentMapPool',
    'TileTransform',
    'fast_products',
    'sparse_conv',
    'sparse_norm',
    'workspaces',
]
