"""Means of a video's features over the moments of a grid, without weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from mmn_plugin.errors import InputError
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
    inside = inside.clamp(min=0).double()
    return (inside / inside.sum(1, keepdim=True).clamp(min=1e-6)).float()


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


# What stands for a moment's surroundings.
SURROUNDINGS = ('neighborhood', 'rest')


@MODELS.register_module()
class TowerPool(BaseModule):
    """Pools the clips of a tower's features into moments, in one or several spaces.

    A space is a mean over a stretch of time that goes with the moment, in parts of clips where its
    edges lie inside of one. Where a score falls with the similarity of a stretch, the mean is
    negated, so that a score rises in every cosine:

    - ``tower``: the moment;
    - ``around``, negated: what surrounds it;
    - ``before``, negated: the stretch before it, as long as a third of the moment;
    - ``first``, ``middle``, ``last``: its thirds.

    Where a video has nothing around or before a moment, the moment or its first third stands for
    it, so that there is no contrast and no rise. (Zeros would: where all cosines lie above zero, as
    those of towers do, they would rank moments at the edges of a video first.)

    There are no weights. `PoolClipFeatures` has made unit vectors of the rows; clips, which are
    means of them, count as they are, so that one whose rows point apart counts less.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        spaces (Sequence[str]): Which spaces; those that the head scores by, which the localizer
            passes.
        surroundings (str): ``'neighborhood'``, as long as the moment on both of its sides, or
            ``'rest'``, all of the video that is not inside. Defaults to ``'neighborhood'``.

    Raises:
        ValueError: If there is no such space, or no such kind of surroundings.
    """

    def __init__(self, grid: MomentGrid, spaces: Sequence[str], surroundings: str = 'neighborhood'):
        super().__init__()
        if surroundings not in SURROUNDINGS:
            raise InputError(
                f'model.neck.surroundings={surroundings!r}; it must be one of {list(SURROUNDINGS)}'
            )
        all_weights = space_weights(grid, surroundings)
        if unknown := [space for space in spaces if space not in all_weights]:
            raise InputError(f'TowerPool has no space {unknown[0]!r}; it has {list(all_weights)}')
        self.spaces = tuple(spaces)
        weights = torch.cat([all_weights[space] for space in spaces])  # (spaces * P, N)
        self.register_buffer('weights', weights, persistent=False)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """Pool.

        Args:
            clips (Tensor): (B, D, N).

        Returns:
            dict[str, Tensor]: (B, P, D) per space, not normalized.
        """
        moments = pooled(clips.transpose(1, 2), self.weights)  # (B, spaces * P, D)
        return dict(zip(self.spaces, moments.chunk(len(self.spaces), dim=1), strict=True))


def space_weights(grid: MomentGrid, surroundings: str) -> dict[str, Tensor]:
    """Weights (P, N) of the clips in each space of `TowerPool`."""
    num_clips = grid.num_clips
    begin, end = grid.starts.double(), grid.ends.double() + 1  # (P,)
    length = end - begin

    def mean(start: Tensor, stop: Tensor) -> Tensor:
        return interval_weights(start, stop, num_clips)

    def instead(weights: Tensor, other: Tensor) -> Tensor:
        return torch.where(weights.sum(1, keepdim=True) > 0, weights, other)

    inside = mean(begin, end)
    wide = length if surroundings == 'neighborhood' else torch.full_like(length, num_clips)
    around = (mean(begin - wide, end + wide) > 0) & (inside == 0)
    around = around / around.sum(1, keepdim=True).clamp(min=1)
    first = mean(begin, begin + length / 3)
    return dict(
        tower=inside,
        around=-instead(around, inside),
        before=-instead(mean(begin - length / 3, begin), first),
        first=first,
        middle=mean(begin + length / 3, end - length / 3),
        last=mean(end - length / 3, end),
    )
