"""The words that all other rooms share."""
from .grounding_data_sample import GroundingDataSample
from .moment_grid import MomentGrid
from .sentence_batch import SentenceBatch
from .temporal_iou import temporal_iou
from .token_ids import TokenIds

__all__ = ['GroundingDataSample', 'MomentGrid', 'SentenceBatch', 'TokenIds', 'temporal_iou']
