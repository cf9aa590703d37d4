"""Metrics for MMEngine's evaluation loops."""

from .dump_predictions import DumpPredictions
from .dump_tube_submission import DumpTubeSubmission
from .grounding_metric import GroundingMetric
from .tube_grounding_metric import TubeGroundingMetric
from .video_results_metric import VideoResultsMetric

__all__ = [
    'DumpPredictions',
    'DumpTubeSubmission',
    'GroundingMetric',
    'TubeGroundingMetric',
    'VideoResultsMetric',
]
