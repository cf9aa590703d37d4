"""Evaluation: figures from ranked moments, in the loop or from a file of predictions."""

from .grounding_protocol import GroundingProtocol
from .grounding_result import GroundingResult
from .metrics import DumpPredictions, DumpTubeSubmission, GroundingMetric, TubeGroundingMetric
from .predictions import match_predictions, read_predictions, write_predictions
from .summary_row import SummaryRow, flat_metrics, format_table
from .tube_result import TubeResult
from .tube_submission import read_submission, score_submission, write_submission

__all__ = [
    'DumpPredictions',
    'DumpTubeSubmission',
    'GroundingMetric',
    'GroundingProtocol',
    'GroundingResult',
    'SummaryRow',
    'TubeGroundingMetric',
    'TubeResult',
    'flat_metrics',
    'format_table',
    'match_predictions',
    'read_predictions',
    'read_submission',
    'score_submission',
    'write_predictions',
    'write_submission',
]
