"""Scores over time of a video, looked at whole or in windows."""

import torch
from torch import Tensor

from mmn_plugin.structures import MomentGrid

from .encoded_video import EncodedVideo


def video_curves(grid: MomentGrid, encoded: EncodedVideo, scores: Tensor) -> Tensor:
    """Curves that a timeline draws.

    Args:
        grid (MomentGrid): The model's.
        encoded (EncodedVideo): The video.
        scores (Tensor): (s, U) scores of its moments, before NMS.

    Returns:
        Tensor: (s, K) float32; K is the grid's clips, or, of a video in windows, an even division.
    """
    # matplotlib, which comes with it, is of no use to those who draw nothing
    from mmn_plugin.visualization import score_curve, span_curve

    if encoded.num_windows == 1:
        return score_curve(grid, scores)
    return torch.stack([span_curve(encoded.spans, row, encoded.duration) for row in scores])
