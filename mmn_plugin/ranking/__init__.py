"""From scores to ranked moments: what models and evaluation share."""

from .nms import nms, rank, take_moments
from .score_runs import relative_threshold, score_runs
from .scores import moment_scores

__all__ = ['moment_scores', 'nms', 'rank', 'relative_threshold', 'score_runs', 'take_moments']
