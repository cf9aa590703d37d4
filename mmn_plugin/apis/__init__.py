"""What a user calls from Python."""

from mmn_plugin.features import EXTRACTORS

from .candidates import Candidate
from .grounding_inferencer import GroundingInferencer
from .tube_inferencer import TubeGroundingInferencer

__all__ = ['EXTRACTORS', 'Candidate', 'GroundingInferencer', 'TubeGroundingInferencer']
