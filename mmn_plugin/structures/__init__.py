"""The words that all other rooms share."""

from .grounding_data_sample import GroundingDataSample
from .moment_grid import MomentGrid
from .sentence_batch import SentenceBatch
from .temporal_iou import temporal_iou
from .token_ids import TokenIds
from .tube_data_sample import TubeDataSample
from .tube_iou import box_iou, cell_bounds, cell_iou, tube_iou

__all__ = [
    'GroundingDataSample',
    'MomentGrid',
    'SentenceBatch',
    'TokenIds',
    'TubeDataSample',
    'box_iou',
    'cell_bounds',
    'cell_iou',
    'temporal_iou',
    'tube_iou',
]
