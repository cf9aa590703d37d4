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


def score_runs(
    curves: Tensor, thresholds: Sequence[float], grid: MomentGrid, halving: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Find the runs of each curve above several relative thresholds, and how they stand out.

    A run is a longest stretch of neighbouring clips whose scores are all at least the threshold.
    Each is a moment of the grid; runs of several thresholds lie inside each other. The first
    threshold is the preferred one: contrast alone would put the narrowest run of a peak first.

    Args:
        curves (Tensor): (S, N) scores of the clips for each sentence.
        thresholds (Sequence[float]): Relative ones, see `relative_threshold`; the preferred one
            first.
        grid (MomentGrid): All moments of N clips; P of them.
        halving (float): Distance from the first threshold at which another one's runs have half
            the weight. Defaults to 0.3.

    Returns:
        tuple[Tensor, Tensor]: (S, P) contrast, the mean score inside minus that outside (of the
        whole video: 0), and (S, P) weight in [0, 1]: 1 for the first threshold's runs, that of
        the nearest threshold for other ones, 0 where the moment is no run. Every curve has a run
        of each threshold.
    """
    starts, ends = grid.clips_on(curves.device)
    weight = curves.new_zeros(len(curves), len(starts))  # (S, P)
    for share in thresholds:
        above = curves >= relative_threshold(curves, share)  # (S, N)
        begins = above & ~F.pad(above[:, :-1], (1, 0))
        stops = above & ~F.pad(above[:, 1:], (0, 1))
        gaps = (~above).cumsum(1)  # clips below the threshold so far
        is_run = begins[:, starts] & stops[:, ends] & (gaps[:, starts] == gaps[:, ends])
        own = 0.5 ** (abs(share - thresholds[0]) / halving)
        weight = torch.where(is_run, weight.clamp(min=own), weight)
    total = F.pad(curves.cumsum(1), (1, 0))  # (S, N + 1)
    inside = total[:, ends + 1] - total[:, starts]  # (S, P)
    length = ends + 1 - starts  # (P,)
    rest = grid.num_clips - length
    contrast = inside / length - (total[:, -1:] - inside) / rest.clamp(min=1)
    return torch.where(rest > 0, contrast, 0.0), weight
