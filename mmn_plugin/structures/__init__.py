"""What all other packages share."""

from .annotations import as_windows, normalized_text
from .data_samples import (
    GroundingDataSample,
    SentenceBatch,
    TokenIds,
    TubeDataSample,
    TubeEmbedding,
    VideoEmbedding,
    true_windows,
    windows_by_sentence,
)
from .moments import (
    MomentGrid,
    best_iou,
    box_iou,
    cell_bounds,
    cell_iou,
    nms_within,
    padded_windows,
    temporal_iou,
    tube_iou,
)

__all__ = [
    'GroundingDataSample',
    'MomentGrid',
    'SentenceBatch',
    'TokenIds',
    'TubeDataSample',
    'TubeEmbedding',
    'VideoEmbedding',
    'as_windows',
    'best_iou',
    'box_iou',
    'cell_bounds',
    'cell_iou',
    'nms_within',
    'normalized_text',
    'padded_windows',
    'temporal_iou',
    'true_windows',
    'tube_iou',
    'windows_by_sentence',
]
