"""Which windows of a video are looked at, and which moments they hold together."""

import math

import numpy as np
import torch

from mmn_plugin.structures import MomentGrid

# Factor on the score of a moment that was only ever seen where a window cuts the video: it may be
# a part of a longer one. Chosen on Shapes' validation videos, where 0.5 to 0.9 made no difference.
CUT_TRUST = 0.7


class WindowPlan:
    """A video as one window, or as overlapping windows on one grid of clips.

    Windows begin at whole clips (of ``window / num_clips`` seconds), so that the same moment seen
    in several windows is one moment here. A moment that touches the edge of a window, where the
    video goes on, may be cut off; it counts only where no other window holds it whole.

    Args:
        grid (MomentGrid): The moments of one window.
        num_rows (int): Rows of the video's features (T).
        row_seconds (float): Seconds from one row to the next.
        duration (float): Seconds of the video.
        window (float, optional): Seconds of a window. Defaults to None: the video is one window.
        overlap (float): Share of a window that the next one sees again. Defaults to 0.75.

    Attributes:
        duration, window (float): Seconds of the video and of a window.
        spans (Tensor): (U, 2) seconds of all different moments, float32.
        trust (Tensor): (U,) factor on their scores, 1 but for moments seen cut off alone.
        place (Tensor): (W, P) int64, which of them each moment of each window is.
        weight (Tensor): (W, P) float32, 0 where a window only sees a moment cut off that another
            one sees whole, else 1.
    """

    def __init__(
        self,
        grid: MomentGrid,
        num_rows: int,
        row_seconds: float,
        duration: float,
        window: float | None = None,
        overlap: float = 0.75,
    ):
        self.duration = duration
        self.num_rows = num_rows
        if window is None or window >= duration:
            self.window = duration
            self._rows = [(0, num_rows)]
            self.spans = grid.spans(duration)
            self.place = torch.arange(grid.num_moments)[None]
            self.weight = torch.ones(1, grid.num_moments)
            self.trust = torch.ones(grid.num_moments)
            return
        self.window = window
        clip = window / grid.num_clips
        starts = self._starts(math.ceil(duration / clip - 1e-6), grid.num_clips, overlap)
        length = max(round(window / row_seconds), 1)
        first = np.minimum(np.round(starts * clip / row_seconds).astype(int), num_rows - 1)
        self._rows = [(begin, begin + length) for begin in first.tolist()]
        self._join(grid, starts, clip)

    def __len__(self) -> int:
        """Number of windows (W)."""
        return len(self._rows)

    @staticmethod
    def _starts(num_clips: int, per_window: int, overlap: float) -> np.ndarray:
        """First clip of every window; the last one ends with the video."""
        step = max(round(per_window * (1 - overlap)), 1)
        last = num_clips - per_window
        return np.append(np.arange(0, last, step), last)

    def _join(self, grid: MomentGrid, starts: np.ndarray, clip: float) -> None:
        first, last = grid.starts.numpy(), grid.ends.numpy()
        begin = starts[:, None] + first  # (W, P), clips of the whole video
        code = begin * grid.num_clips + (last - first)
        codes, place = np.unique(code, return_inverse=True)
        place = place.reshape(code.shape)
        index = np.arange(len(starts))[:, None]
        cut = ((first == 0) & (index > 0)) | (
            (last == grid.num_clips - 1) & (index < len(starts) - 1)
        )
        whole = np.zeros(len(codes), dtype=bool)
        whole[place[~cut]] = True
        begin, length = np.divmod(codes, grid.num_clips)
        spans = np.stack([begin, begin + length + 1], axis=1) * clip
        self.spans = torch.from_numpy(spans.clip(max=self.duration)).to(torch.float32)
        self.place = torch.from_numpy(place)
        self.weight = torch.from_numpy((~cut | ~whole[place]).astype(np.float32))
        self.trust = torch.from_numpy(np.where(whole, 1.0, CUT_TRUST).astype(np.float32))

    def features(self, video: np.ndarray, index: int) -> np.ndarray:
        """Rows of one window; past the end of the video the last row is repeated.

        Args:
            video (np.ndarray): (T, D).
            index (int): Number of the window.

        Returns:
            np.ndarray: (T of the window, D).
        """
        begin, end = self._rows[index]
        rows = video[begin:end]
        missing = end - begin - len(rows)
        return rows if missing <= 0 else np.concatenate([rows, rows[-1:].repeat(missing, 0)])
