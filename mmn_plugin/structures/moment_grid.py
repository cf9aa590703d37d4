"""Which moments of a video exist."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .iou import temporal_iou


class MomentGrid:
    """The valid cells (moments) of a 2D moment map, after 2D-TAN's sparse sampling.

    A moment (i, j), i <= j, runs from the start of clip i to the end of clip j. Short moments all
    exist; longer ones are sampled with a stride that doubles from level to level: the diagonal
    exists, then level ``l`` adds, ``pooling_counts[l]`` times over, one more offset of ``2 ** l``
    clips with starts every ``2 ** l`` clips. This class is the only place that knows it.

    Args:
        num_clips (int): Clips a video is cut into (N); the map has N x N cells.
        pooling_counts (Sequence[int]): Number of offsets per level.

    Attributes:
        mask (Tensor): (N, N) bool, valid cells.
        starts (Tensor): (P,) int64, first clip of each valid moment; moments are in row-major
            order of the map.
        ends (Tensor): (P,) int64, last clip of each valid moment (inclusive).

    Raises:
        ValueError: If the counts reach beyond the last clip, or are no counts.
    """

    def __init__(self, num_clips: int, pooling_counts: Sequence[int]):
        self.num_clips = num_clips
        self.pooling_counts = tuple(pooling_counts)
        self._check_counts()
        self.mask = self._valid_cells()
        self.starts, self.ends = self.mask.nonzero(as_tuple=True)
        self._clips: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _check_counts(self) -> None:
        used = [level for level, count in enumerate(self.pooling_counts) if count]
        gap = [level for level in range(1, max(used, default=0)) if level not in used]
        if any(not isinstance(count, int) or count < 0 for count in self.pooling_counts) or gap:
            raise InputError(
                f'pooling_counts={list(self.pooling_counts)}: give whole numbers, '
                'none below 0 and no 0 between levels (strides can only double)'
            )

    def _valid_cells(self) -> Tensor:
        mask = torch.eye(self.num_clips, dtype=torch.bool)
        for offset, stride in self.offsets():
            if offset >= self.num_clips:
                raise InputError(
                    f'pooling_counts={list(self.pooling_counts)} asks for moments of {offset + 1} '
                    f'clips, but num_clips={self.num_clips}; lower the counts or raise num_clips'
                )
            starts = torch.arange(0, self.num_clips - offset, stride)
            mask[starts, starts + offset] = True
        return mask

    def offsets(self) -> list[tuple[int, int]]:
        """(offset, stride) of every diagonal beside the main one, shortest moments first."""
        offset, result = 0, []
        for level, count in enumerate(self.pooling_counts):
            for _ in range(count):
                offset += 2**level
                result.append((offset, 2**level))
        return result

    @property
    def num_moments(self) -> int:
        """Number of valid moments (P)."""
        return len(self.starts)

    def spans(self, duration: float | Tensor) -> Tensor:
        """Start and end of every moment in seconds, in float32 as the published code.

        Args:
            duration (float | Tensor): Seconds of one video, or (V,) of several.

        Returns:
            Tensor: (P, 2), or (V, P, 2) for a tensor of durations, on the durations' device.
        """
        single = not torch.is_tensor(duration)
        durations = torch.as_tensor([duration] if single else duration).to(torch.float32)
        first, last = self.clips_on(durations.device)
        cells = torch.stack([first, last + 1], dim=-1).to(torch.float32)  # (P, 2)
        spans = cells * durations[:, None, None] / self.num_clips  # (V, P, 2)
        return spans[0] if single else spans

    def clips_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """``starts`` and ``ends`` on a device, copied there once."""
        if device not in self._clips:
            self._clips[device] = self.starts.to(device), self.ends.to(device)
        return self._clips[device]

    def iou(self, moments: Tensor, duration: float) -> Tensor:
        """IoU of every ground-truth moment of a video with every moment of the grid.

        Args:
            moments (Tensor): (s, 2) seconds.
            duration (float): Seconds of the video.

        Returns:
            Tensor: (s, P) float32.
        """
        spans = self.spans(duration).to(moments.device)
        return temporal_iou(moments.to(torch.float32)[:, None], spans[None])

    def to_map(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Lay values of the moments out on the map.

        Args:
            values (Tensor): (..., P).
            fill (float): Value of the cells that do not exist. Defaults to 0.

        Returns:
            Tensor: (..., N, N).
        """
        size = self.num_clips
        dense = values.new_full((*values.shape[:-1], size * size), fill)
        first, last = self.clips_on(values.device)
        dense[..., first * size + last] = values
        return dense.unflatten(-1, (size, size))

    def __repr__(self) -> str:
        return (
            f'MomentGrid(num_clips={self.num_clips}, '
            f'pooling_counts={list(self.pooling_counts)}, num_moments={self.num_moments})'
        )
