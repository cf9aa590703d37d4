"""Figures from ranked moments, in the loop or from a file of predictions."""

from .grounding_metric import DumpPredictions, GroundingMetric, VideoResultsMetric
from .predictions import (
    GroundingResult,
    PredictionsError,
    match_predictions,
    predictions_content,
    read_predictions,
    write_predictions,
)
from .recall import (
    chance_level,
    format_table,
    mean_iou,
    ranked_iou,
    recall,
)
from .tube_metric import (
    DumpTubeSubmission,
    TubeGroundingMetric,
    TubeResult,
    check_thresholds,
    read_submission,
    score_submission,
    tube_bounds,
    tube_figures,
    write_submission,
)

__all__ = [
    'DumpPredictions',
    'DumpTubeSubmission',
    'GroundingMetric',
    'GroundingResult',
    'PredictionsError',
    'TubeGroundingMetric',
    'TubeResult',
    'VideoResultsMetric',
    'chance_level',
    'check_thresholds',
    'format_table',
    'match_predictions',
    'mean_iou',
    'predictions_content',
    'ranked_iou',
    'read_predictions',
    'read_submission',
    'recall',
    'score_submission',
    'tube_bounds',
    'tube_figures',
    'write_predictions',
    'write_submission',
]
