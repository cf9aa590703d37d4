"""Checks of a dataset before a day is lost on it."""

from .check_annotations import check_annotations
from .check_config import check_config
from .check_features import check_features
from .check_report import CheckReport
from .check_sentences import check_sentences
from .check_splits import check_splits
from .check_tubes import check_tubes
from .finding import Finding

__all__ = [
    'CheckReport',
    'Finding',
    'check_annotations',
    'check_config',
    'check_features',
    'check_sentences',
    'check_splits',
    'check_tubes',
]
