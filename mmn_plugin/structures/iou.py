"""Overlap of moments, boxes, cells of the moment map, and tubes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .moment_grid import MomentGrid


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


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes in pixels, both edges included (a box is ``x2 - x1 + 1`` wide).

    Args:
        a (np.ndarray): (..., 4) x1, y1, x2, y2.
        b (np.ndarray): (..., 4), broadcast against ``a``.

    Returns:
        np.ndarray: (...) float64; 0 where the boxes do not meet.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    inside = (high + 1 - low).clip(min=0).prod(-1)
    areas = ((x[..., 2:] - x[..., :2] + 1).prod(-1) for x in (a, b))
    return inside / (sum(areas) - inside)


def match_boxes(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hold every box against the true box of its frame.

    Args:
        boxes (np.ndarray): (n, 5) frame, x1, y1, x2, y2, in any order.
        truth (np.ndarray): (m, 5), m >= 1, frames rising.

    Returns:
        tuple[np.ndarray, np.ndarray]: (n,) bool, whether the ground truth has a box in that frame,
        and (n,) float64, the IoU with it (0 where it has none).
    """
    place = np.searchsorted(truth[:, 0], boxes[:, 0]).clip(max=len(truth) - 1)
    shared = truth[place, 0] == boxes[:, 0]
    return shared, np.where(shared, box_iou(boxes[:, 1:], truth[place, 1:]), 0.0)


def tube_iou(tube: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Spatio-temporal and temporal IoU of two tubes.

    vIoU is the sum of box IoUs over the frames that both have, divided by the number of frames
    that one of them has; that is the mean over shared frames times tIoU, their share. A frame
    without a box, inside a gap, counts on neither side.

    Args:
        tube (np.ndarray): (n, 5) frame, x1, y1, x2, y2; frames all different.
        truth (np.ndarray): (m, 5), likewise, rising.

    Returns:
        tuple[float, float]: vIoU and tIoU, 0 for an empty tube.
    """
    shared, overlap = match_boxes(tube, truth)
    union = len(tube) + len(truth) - int(shared.sum())
    return float(overlap.sum() / union), float(shared.sum() / union)


def cell_bounds(grid: MomentGrid, lengths: Sequence[int]) -> np.ndarray:
    """Which boxes of its tube a cell is: ``round(i / N * n)`` to ``round((j + 1) / N * n)``.

    Rounded in float32, half to even, like the boundaries of pooled features.

    Args:
        grid (MomentGrid): The cells.
        lengths (Sequence[int]): Boxes n of each of T tubes.

    Returns:
        np.ndarray: (T, P, 2) int64, first box and the one after the last; equal where the cell is
        empty.
    """
    steps = np.arange(grid.num_clips + 1, dtype=np.float32) / np.float32(grid.num_clips)
    counts = np.asarray(lengths, np.float32)[:, None]
    bounds = np.round(steps * counts).astype(np.int64)  # (T, N + 1)
    return np.stack([bounds[:, grid.starts.numpy()], bounds[:, grid.ends.numpy() + 1]], -1)


def cell_iou(
    grid: MomentGrid,
    tubes: Sequence[np.ndarray],
    truth: np.ndarray,
    bounds: np.ndarray | None = None,
) -> np.ndarray:
    """Spatio-temporal IoU of every cell of every tube with one true tube.

    A cell's sum of box IoUs is the difference of two cumulative sums over its tube, so the work is
    that of all boxes and of all cells, not of their product.

    Args:
        grid (MomentGrid): The cells.
        tubes (Sequence[np.ndarray]): T tubes, each (n, 5) frame, x1, y1, x2, y2.
        truth (np.ndarray): (m, 5), frames rising.
        bounds (np.ndarray, optional): ``cell_bounds`` of these tubes, where they are known.

    Returns:
        np.ndarray: (T, P) float32; 0 where a cell is empty or shares no frame.
    """
    lengths = [len(tube) for tube in tubes]
    bounds = cell_bounds(grid, lengths) if bounds is None else bounds
    shared, overlap = match_boxes(np.concatenate(tubes), truth)
    first = np.cumsum([0, *lengths[:-1]])[:, None]  # (T, 1)
    begin, end = bounds[..., 0] + first, bounds[..., 1] + first  # (T, P)
    shared, overlap = (np.concatenate([[0], np.cumsum(values)]) for values in (shared, overlap))
    num_shared = shared[end] - shared[begin]
    union = end - begin + len(truth) - num_shared
    result = (overlap[end] - overlap[begin]) / union
    return np.where(num_shared > 0, result, 0.0).astype(np.float32)
