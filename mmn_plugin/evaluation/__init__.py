"""Figures from ranked moments, in the loop or from a file of predictions."""

from .grounding_metric import DumpPredictions, GroundingMetric, VideoResultsMetric
from .predictions import (
    GroundingResult,
    PredictionsError,
    match_predictions,
    read_predictions,
    write_predictions,
)
from .recall import (
    GreedyCheck,
    chance_level,
    format_table,
    is_greedy_ranking,
    mean_iou,
    published_recall_table,
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
    'GreedyCheck',
    'GroundingMetric',
    'GroundingResult',
    'PredictionsError',
    'TubeGroundingMetric',
    'TubeResult',
    'VideoResultsMetric',
    'chance_level',
    'check_thresholds',
    'format_table',
    'is_greedy_ranking',
    'match_predictions',
    'mean_iou',
    'published_recall_table',
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
