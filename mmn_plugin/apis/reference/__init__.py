"""Agreement with the figures of the published code."""

from .evaluation_check import check_evaluation
from .golden_file import GoldenFile
from .golden_file_error import GoldenFileError
from .model_check import check_model
from .report import Report
from .row import Row
from .tube_check import check_tubes

__all__ = [
    'GoldenFile',
    'GoldenFileError',
    'Report',
    'Row',
    'check_evaluation',
    'check_model',
    'check_tubes',
]
