"""Necks: from clips to moments, or to embeddings of their own."""

from .frame_neck import FrameNeck
from .moment_encoder import MomentEncoder
from .moment_map_neck import MomentMap, MomentMapConv, MomentMapNeck, MomentMapPool
from .sparse_conv import workspaces
from .tower_pool import TowerPool

__all__ = [
    'FrameNeck',
    'MomentEncoder',
    'MomentMap',
    'MomentMapConv',
    'MomentMapNeck',
    'MomentMapPool',
    'TowerPool',
    'workspaces',
]
