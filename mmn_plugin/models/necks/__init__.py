"""Necks: from clips to moments, or to embeddings of their own."""

from .frame_neck import FrameNeck
from .moment_encoder import MomentEncoder
from .moment_map import MomentMap
from .moment_map_conv import MomentMapConv
from .moment_map_neck import MomentMapNeck
from .moment_map_pool import MomentMapPool

__all__ = [
    'FrameNeck',
    'MomentEncoder',
    'MomentMap',
    'MomentMapConv',
    'MomentMapNeck',
    'MomentMapPool',
]
