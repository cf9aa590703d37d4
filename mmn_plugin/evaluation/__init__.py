"""Figures from ranked moments, in the loop or from a file of predictions."""

from .answer_text import UNITS, AnswerReader, AnswerReading
from .answers import ReadAnswer, answer_checks, answer_counts, answers_content, read_answers
from .base_metric import VideoResultsMetric
from .grounding_metric import DumpPredictions, GroundingMetric
from .library_metric import (
    AskedSentence,
    asked_sentences,
    library_figures,
    read_tvr,
    whole_truth_figures,
    write_tvr,
)
from .library_ranking import LibraryRanking, MomentPool, rank_library, rank_own_videos
from .predictions import (
    GroundingResult,
    PredictionsError,
    match_predictions,
    predictions_content,
    read_predictions,
    write_predictions,
)
from .presence import auroc
from .qvhighlights import qvhighlights_figures, read_qvhighlights
from .qvhighlights_metric import DumpQVHighlights, QVHighlightsMetric
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
    'UNITS',
    'AnswerReader',
    'AnswerReading',
    'AskedSentence',
    'DumpPredictions',
    'DumpQVHighlights',
    'DumpTubeSubmission',
    'GroundingMetric',
    'GroundingResult',
    'LibraryRanking',
    'MomentPool',
    'PredictionsError',
    'QVHighlightsMetric',
    'ReadAnswer',
    'TubeGroundingMetric',
    'TubeResult',
    'VideoResultsMetric',
    'answer_checks',
    'answer_counts',
    'answers_content',
    'asked_sentences',
    'auroc',
    'chance_level',
    'check_thresholds',
    'format_table',
    'library_figures',
    'match_predictions',
    'mean_iou',
    'predictions_content',
    'qvhighlights_figures',
    'rank_library',
    'rank_own_videos',
    'ranked_iou',
    'read_answers',
    'read_predictions',
    'read_qvhighlights',
    'read_submission',
    'read_tvr',
    'recall',
    'score_submission',
    'tube_bounds',
    'tube_figures',
    'whole_truth_figures',
    'write_predictions',
    'write_submission',
    'write_tvr',
]
