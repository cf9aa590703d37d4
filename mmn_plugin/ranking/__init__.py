"""From scores to ranked moments: what models and evaluation share."""
from .nms import nms, take_moments
from .scores import moment_scores

__all__ = ['moment_scores', 'nms', 'take_moments']
