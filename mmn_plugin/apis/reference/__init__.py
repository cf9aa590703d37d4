"""Agreement with the figures of the published code."""
from .evaluation_check import check_evaluation
from .golden_file import GoldenFile
from .model_check import check_model
from .report import Report, Row

__all__ = ['GoldenFile', 'Report', 'Row', 'check_evaluation', 'check_model']
