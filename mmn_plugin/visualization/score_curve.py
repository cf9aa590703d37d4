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
        raise ValueError(f'a curve of {grid.num_moments} moments needs as many values, not '
                         f'{tuple(values.shape)}')
    best = grid.to_map(values, fill=-math.inf)  # (..., N, N): start, end
    best = best.cummax(-2).values  # that start at a clip or before it
    best = best.flip(-1).cummax(-1).values.flip(-1)  # and end at it or after it
    return best.diagonal(dim1=-2, dim2=-1)  # (..., N)
