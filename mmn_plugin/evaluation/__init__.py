"""Figures from ranked moments, in the loop or from a file of predictions."""

from .grounding_metric import DumpPredictions, GroundingMetric, VideoResultsMetric
from .predictions import match_predictions, read_predictions, write_predictions
from .protocol import GroundingProtocol, GroundingResult, SummaryRow, flat_metrics, format_table
from .recall import (
    GreedyCheck,
    chance_level,
    is_greedy_ranking,
    mean_iou,
    published_recall_table,
    ranked_iou,
    recall,
    recall_of_iou,
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
    'GroundingProtocol',
    'GroundingResult',
    'SummaryRow',
    'TubeGroundingMetric',
    'TubeResult',
    'VideoResultsMetric',
    'chance_level',
    'check_thresholds',
    'flat_metrics',
    'format_table',
    'is_greedy_ranking',
    'match_predictions',
    'mean_iou',
    'published_recall_table',
    'ranked_iou',
    'read_predictions',
    'read_submission',
    'recall',
    'recall_of_iou',
    'score_submission',
    'tube_bounds',
    'tube_figures',
    'write_predictions',
    'write_submission',
]
