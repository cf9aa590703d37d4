"""Means of a video's features over the moments of a grid, without weights."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmn_plugin.structures import MomentGrid


def moment_means(rows: Tensor, grid: MomentGrid) -> Tensor:
    """Mean of the rows inside each moment.

    Args:
        rows (Tensor): (B, R, D), averaged to the N clips first.
        grid (MomentGrid): The P moments.

    Returns:
        Tensor: (B, P, D), float32 or longer.
    """
    first, last = grid.clips_on(rows.device)
    weights = interval_weights(first, last + 1, grid.num_clips)  # (P, N)
    return pooled(clip_means(rows, grid.num_clips), weights)


def clip_means(rows: Tensor, num_clips: int) -> Tensor:
    """Mean of the rows of each of N equal parts: (B, R, D) -> (B, N, D), float32 or longer."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    if rows.shape[1] == num_clips:
        return rows
    return F.adaptive_avg_pool1d(rows.transpose(1, 2), num_clips).transpose(1, 2)


def interval_weights(begin: Tensor, end: Tensor, num_clips: int) -> Tensor:
    """Weights of the clips in the mean over an interval of time.

    Args:
        begin (Tensor): (P,) in clips, whole or not; what lies outside of the video does not count.
        end (Tensor): (P,), likewise.
        num_clips (int): Clips of the video (N).

    Returns:
        Tensor: (P, N) float32; a row sums to 1, or to 0 where the interval is empty.
    """
    clips = torch.arange(num_clips, device=begin.device)
    inside = torch.minimum(end[:, None], clips + 1) - torch.maximum(begin[:, None], clips)
    inside = inside.clamp(min=0).to(torch.float32)
    return inside / inside.sum(1, keepdim=True).clamp(min=1e-6)


def pooled(clips: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of clips, in full precision under mixed precision too.

    Args:
        clips (Tensor): (B, N, D).
        weights (Tensor): (P, N).

    Returns:
        Tensor: (B, P, D).
    """
    with torch.autocast(clips.device.type, enabled=False):
        return weights.to(clips.dtype) @ clips
