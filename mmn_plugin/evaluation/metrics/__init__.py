"""Metrics for MMEngine's evaluation loops."""
from .dump_predictions import DumpPredictions
from .grounding_metric import GroundingMetric
from .video_results_metric import VideoResultsMetric

__all__ = ['DumpPredictions', 'GroundingMetric', 'VideoResultsMetric']
