"""Scores of moments as a curve over time."""

import math

import torch
from torch import Tensor

from mmn_plugin.structures import MomentGrid


def score_curve(grid: MomentGrid, values) -> Tensor:
    """How well the best moment around each clip fits.

    At a clip the curve has the largest score of all moments that contain the clip. So it peaks
    over the moment of rank 1 with that moment's score, and never hides a rival elsewhere.

    Args:
        grid (MomentGrid): Which moments exist.
        values (Tensor | np.ndarray): (P,) or (s, P), a score per moment, before NMS.

    Returns:
        Tensor: (N,) or (s, N) float32, one value per clip.

    Raises:
        ValueError: If there is not one value per moment.
    """
    values = torch.as_tensor(values).detach().float().cpu()  # (..., P)
    if values.shape[-1:] != (grid.num_moments,):
        raise ValueError(
            f'a curve of {grid.num_moments} moments needs as many values, not {tuple(values.shape)}'
        )
    best = grid.to_map(values, fill=-math.inf)  # (..., N, N): start, end
    best = best.cummax(-2).values  # that start at a clip or before it
    best = best.flip(-1).cummax(-1).values.flip(-1)  # and end at it or after it
    return best.diagonal(dim1=-2, dim2=-1)  # (..., N)


def span_curve(spans, values, duration: float, steps: int = 96) -> Tensor:
    """As `score_curve`, for moments that are no grid, such as those of a video in windows.

    Args:
        spans (Tensor): (U, 2) start and end of the moments in seconds.
        values (Tensor): (U,) their scores.
        duration (float): Seconds of the video.
        steps (int): Values of the curve. Defaults to 96.

    Returns:
        Tensor: (steps,) float32; 0 where there is no moment.
    """
    spans, values = (torch.as_tensor(value).detach().float().cpu() for value in (spans, values))
    first = (spans[:, 0] / duration * steps).round().long().clamp(0, steps - 1)  # (U,)
    last = (spans[:, 1] / duration * steps).round().long().sub(1).clamp(0, steps - 1)
    last = torch.maximum(first, last)
    table = torch.zeros(steps, steps)  # the best score of the moments from one step to another
    place = first * steps + last
    table.view(-1).scatter_reduce_(0, place, values, 'amax')
    best = table.cummax(0).values.flip(-1).cummax(-1).values.flip(-1)
    return best.diagonal()
