"""Evaluation: figures from ranked moments, in the loop or from a file of predictions."""
from .grounding_protocol import GroundingProtocol
from .grounding_result import GroundingResult
from .metrics import DumpPredictions, GroundingMetric
from .predictions import match_predictions, read_predictions, write_predictions
from .summary_row import SummaryRow, flat_metrics, format_table

__all__ = [
    'DumpPredictions', 'GroundingMetric', 'GroundingProtocol', 'GroundingResult', 'SummaryRow',
    'flat_metrics', 'format_table', 'match_predictions', 'read_predictions', 'write_predictions'
]
