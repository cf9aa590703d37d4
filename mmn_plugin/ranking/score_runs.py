"""From a curve of scores over time to moments."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmn_plugin.structures import MomentGrid


def relative_threshold(scores: Tensor, share: float) -> Tensor:
    """Threshold that lies a share of the way from each row's lowest to its highest score.

    Args:
        scores (Tensor): (S, N).
        share (float): 0 is the lowest, 1 the highest.

    Returns:
        Tensor: (S, 1), never above the row's highest score.
    """
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return torch.minimum(low + share * (high - low), high)  # rounding could pass it


def score_runs(curves: Tensor, thresholds: Sequence[float],
               grid: MomentGrid) -> tuple[Tensor, Tensor]:
    """Find the runs of each curve above several relative thresholds, and how they stand out.

    A run is a longest stretch of neighbouring clips whose scores are all at least the threshold.
    Each is a moment of the grid; the same run may come from several thresholds.

    Args:
        curves (Tensor): (S, N) scores of the clips for each sentence.
        thresholds (Sequence[float]): Relative ones, see `relative_threshold`.
        grid (MomentGrid): All moments of N clips; P of them.

    Returns:
        tuple[Tensor, Tensor]: (S, P) contrast, the mean score inside minus that outside (of the
        whole video: 0), and (S, P) bool, whether the moment is a run. Every curve has a run.
    """
    starts, ends = grid.starts.to(curves.device), grid.ends.to(curves.device)
    is_run = torch.zeros(len(curves), len(starts), dtype=torch.bool, device=curves.device)
    for share in thresholds:
        above = curves >= relative_threshold(curves, share)  # (S, N)
        begins = above & ~F.pad(above[:, :-1], (1, 0))
        stops = above & ~F.pad(above[:, 1:], (0, 1))
        gaps = (~above).cumsum(1)  # clips below the threshold so far
        is_run |= begins[:, starts] & stops[:, ends] & (gaps[:, starts] == gaps[:, ends])
    total = F.pad(curves.cumsum(1), (1, 0))  # (S, N + 1)
    inside = total[:, ends + 1] - total[:, starts]  # (S, P)
    length = ends + 1 - starts  # (P,)
    rest = grid.num_clips - length
    contrast = inside / length - (total[:, -1:] - inside) / rest.clamp(min=1)
    return torch.where(rest > 0, contrast, 0.), is_run
