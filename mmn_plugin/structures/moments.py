"""Moments: which of a video and of its tubes exist, and how they overlap with the true ones."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmn_plugin.errors import InputError


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


def padded_windows(windows: Sequence[Tensor]) -> Tensor:
    """Windows (W_i, 2) of S sentences as (S, M, 2): M is the most that one has, at least 1, and
    what a sentence has fewer is NaN.
    """
    padded = pad_sequence([torch.zeros(1, 2), *windows], batch_first=True, padding_value=torch.nan)
    return padded[1:]


def best_iou(windows: Tensor, spans: Tensor) -> Tensor:
    """IoU of moments with that of their sentence's windows that they fit best.

    Args:
        windows (Tensor): (S, M, 2) seconds, as of `padded_windows`.
        spans (Tensor): (P, 2) or (S, P, 2) seconds, the moments; NaN where there is none.

    Returns:
        Tensor: (S, P); 0 where there is no window or no moment.
    """
    iou = spans.new_zeros(len(windows), spans.shape[-2])
    for window in windows.unbind(1):  # few: M arrays of (S, P) at a time
        iou = torch.fmax(iou, temporal_iou(window[:, None], spans))
    return iou


def nms_within(groups: Tensor, spans: Tensor, iou_threshold: float | None) -> Tensor:
    """Greedy NMS of ranked moments, among those of each group alone, such as a video's.

    What stays of the first of a ranking is the first of what stays of the whole ranking.

    Args:
        groups (Tensor): (S, K) int64 group of each moment, best moment first; -1 for no moment.
        spans (Tensor): (S, K, 2) float32 seconds.
        iou_threshold (float | None): IoU with a better moment of its group above which a moment
            goes. None: the best moment of each group alone stays.

    Returns:
        Tensor: (S, K) bool, which moments stay.
    """
    kept = torch.zeros(groups.numel(), dtype=torch.bool)
    if not len(kept):
        return kept.view_as(groups)
    there = (groups >= 0).flatten()
    rankings = torch.arange(len(groups))[:, None]
    groups, shape = (groups + (groups.max() + 1) * rankings).flatten(), groups.shape
    spans, alive = spans.flatten(0, 1), groups.argsort(stable=True)  # by group, best first
    alive = alive[there[alive]]
    while len(alive):
        own = groups[alive]
        first = torch.ones(len(alive), dtype=torch.bool)
        first[1:] = own[1:] != own[:-1]
        picks = alive[first]
        kept[picks] = True
        if iou_threshold is None:
            break
        nearest = picks[first.cumsum(0) - 1]  # each one's pick of this round
        close = temporal_iou(spans[alive], spans[nearest]) > iou_threshold
        alive = alive[~(first | close)]
    return kept.view(shape)


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

    def best_iou(self, windows: Sequence[Tensor], duration: float) -> Tensor:
        """IoU of every moment of the grid with that of each sentence's windows that it fits best.

        Args:
            windows (Sequence[Tensor]): For each of s sentences its windows (W_i, 2) in seconds, as
                of `GroundingDataSample.windows`.
            duration (float): Seconds of the video.

        Returns:
            Tensor: (s, P) float32; 0 for a sentence without a window.
        """
        padded = padded_windows(windows)
        return best_iou(padded, self.spans(duration).to(padded.device))

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
