"""What a user calls from Python."""

from mmn_plugin.features import EXTRACTORS

from .grounding_inferencer import GroundingInferencer
from .tube_inferencer import TubeGroundingInferencer

__all__ = ['EXTRACTORS', 'GroundingInferencer', 'TubeGroundingInferencer']
