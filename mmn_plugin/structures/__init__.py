"""What all other packages share."""

from .annotations import normalized_text
from .data_samples import (
    GroundingDataSample,
    SentenceBatch,
    TokenIds,
    TubeDataSample,
    TubeEmbedding,
    VideoEmbedding,
)
from .moments import (
    MomentGrid,
    box_iou,
    cell_bounds,
    cell_iou,
    nms_within,
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
    'box_iou',
    'cell_bounds',
    'cell_iou',
    'nms_within',
    'normalized_text',
    'temporal_iou',
    'tube_iou',
]
