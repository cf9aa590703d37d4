"""Temporal intersection over union."""

import torch
from torch import Tensor


def temporal_iou(moments_a: Tensor, moments_b: Tensor) -> Tensor:
    """IoU of moments in time, with the hull of the two as the union (2D-TAN's and MMN's formula).

    ``clamp(min(ends) - max(starts), 0) / (max(ends) - min(starts))``. For moments that touch or
    overlap the hull is the union; for others the numerator is 0 anyway.

    Args:
        moments_a (Tensor): (..., 2) start and end in seconds.
        moments_b (Tensor): (..., 2) start and end in seconds, broadcast against ``moments_a``.

    Returns:
        Tensor: (...) IoU in [0, 1]; NaN where both moments are the same single instant or
        either is NaN.
    """
    start_a, end_a = moments_a.unbind(-1)
    start_b, end_b = moments_b.unbind(-1)
    intersection = torch.minimum(end_a, end_b) - torch.maximum(start_a, start_b)
    hull = torch.maximum(end_a, end_b) - torch.minimum(start_a, start_b)
    return intersection.clamp(min=0) / hull
