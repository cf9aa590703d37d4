"""Encode videos, long ones window by window."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from mmn_plugin.engine.identity import require_tower_features
from mmn_plugin.errors import InputError
from mmn_plugin.features.feature_file import require_same_extractor
from mmn_plugin.structures import GroundingDataSample, MomentGrid, VideoEmbedding

from .video_input import VideoFeatures

# Factor on the score of a moment that was only ever seen where a window cuts the video: it may be
# a part of a longer one. Chosen on Shapes' validation videos, where 0.5 to 0.9 made no difference.
CUT_TRUST = 0.7
WINDOW_BATCH = 8  # windows that go through the model together


class WindowPlan:
    """A video as one window, or as overlapping windows on one grid of clips.

    Windows begin at whole clips (of ``window / num_clips`` seconds), so that the same moment seen
    in several windows is one moment here. A moment that touches the edge of a window, where the
    video goes on, may be cut off; it counts only where no other window holds it whole. What windows
    say is added up, so that memory grows with the different moments of a video alone.

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
        self._sums: dict[str, Tensor] = {}
        if window is None or window >= duration:
            self.window = duration
            self._rows = [(0, num_rows)]
            self.spans = grid.spans(duration)
            self.place = torch.arange(grid.num_moments)[None]
            self.weight, self.trust = torch.ones(1, grid.num_moments), torch.ones(grid.num_moments)
            return
        self.window = window
        clip = window / grid.num_clips
        step = max(round(grid.num_clips * (1 - overlap)), 1)
        last = math.ceil(duration / clip - 1e-6) - grid.num_clips  # this one ends with the video
        starts = np.append(np.arange(0, last, step), last)  # (W,), clips
        length = max(round(window / row_seconds), 1)
        first = np.minimum(np.round(starts * clip / row_seconds).astype(int), num_rows - 1)
        self._rows = [(begin, begin + length) for begin in first.tolist()]
        self._join(grid, starts, clip)

    def __len__(self) -> int:
        """Number of windows (W)."""
        return len(self._rows)

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
        """Rows of one window, of all (T, D); past the video's end the last one is repeated."""
        begin, end = self._rows[index]
        rows = video[begin:end]
        missing = end - begin - len(rows)
        return rows if missing <= 0 else np.concatenate([rows, rows[-1:].repeat(missing, 0)])

    def add(self, index: int, moments: dict[str, Tensor]) -> None:
        """Add what a window says: unit vectors of its units, (P, J) per joint space."""
        for space, values in moments.items():
            if space not in self._sums:
                self._sums[space] = values.new_zeros(len(self.spans), values.shape[1])
            weighted = values * self.weight[index].to(values)[:, None]
            self._sums[space].index_add_(0, self.place[index].to(values.device), weighted)

    def mean(self) -> dict[str, Tensor]:
        """Mean embedding of every moment, (U, J) per joint space.

        Not made unit again: windows that disagree about a moment make its cosines small.
        """
        counts = torch.zeros(len(self.spans))  # (U,)
        counts.index_add_(0, self.place.flatten(), self.weight.flatten())
        return {space: sums / counts.to(sums)[:, None] for space, sums in self._sums.items()}


@dataclass
class LongVideo:
    """The config's ``long_video``: windows as long as the videos of training.

    Args:
        window (float, optional): Seconds of a window. Defaults to None: every video is one window.
        overlap (float): Share of a window that the next one sees again, at least 0 and below 1.
            Defaults to 0.75.
        longest (float, optional): Seconds up to which a video still is one window. Defaults to
            None: one and a half windows.

    Raises:
        ValueError: If a number is out of its range.
    """

    window: float | None = None
    overlap: float = 0.75
    longest: float | None = None

    def __post_init__(self):
        if self.window is not None and not self.window > 0:
            raise InputError(
                f'long_video.window={self.window}: give seconds above 0, or None for '
                'one window over any video'
            )
        if not 0 <= self.overlap < 1:
            raise InputError(
                f'long_video.overlap={self.overlap}: it must be at least 0 and below 1'
            )
        if self.window is not None and self.longest is None:
            self.longest = 1.5 * self.window

    def window_of(self, duration: float) -> float | None:
        """Seconds of the windows of a video of some duration; None: it is looked at whole."""
        return None if self.window is None or duration <= self.longest else self.window


@dataclass
class VideoEncoder:
    """Encodes videos, the windows of several together.

    Args:
        model (nn.Module): A localizer, in evaluation mode.
        pipeline (Callable): The test pipeline from features on.
        device (str): The model's.
        long_video (LongVideo): How long videos are cut into windows.
        fingerprints (list[dict | None] | None): What made the features of the training; None
            where that is not known.
        checkpoint (str): Where they stand, for messages.
    """

    model: nn.Module
    pipeline: Callable
    device: str
    long_video: LongVideo
    fingerprints: list[dict | None] | None
    checkpoint: str

    @torch.inference_mode()
    def __call__(self, videos: Sequence[VideoFeatures]) -> list[VideoEmbedding]:
        """Encode.

        Raises:
            ValueError: If the features' size is not the model's, or another extractor made them
                than those of its training.
        """
        plans = [self._plan(video) for video in videos]
        remaining = self._windows(videos, plans)
        while chunk := list(islice(remaining, WINDOW_BATCH)):
            inputs = torch.stack([packed['inputs'] for _, _, packed in chunk]).to(self.device)
            samples = [packed['data_samples'] for _, _, packed in chunk]
            windows = self.model.encode_videos(inputs, samples)
            for (video, window, _), encoded in zip(chunk, windows, strict=True):
                plans[video].add(window, encoded.embeddings)
        return [
            VideoEmbedding(
                plan.mean(),
                plan.spans.to(self.device),
                video.video_id,
                video.duration,
                plan.trust.to(self.device) if len(plan) > 1 else None,
                len(plan),
                plan.duration / plan.window,
            )
            for video, plan in zip(videos, plans, strict=True)
        ]

    @torch.inference_mode()
    def encode_pooled(self, inputs: Tensor, sample: GroundingDataSample) -> VideoEmbedding:
        """Encode a video as a dataset gives it, (R, D) after pooling: always as one window."""
        return self.model.encode_videos(inputs[None].to(self.device), [sample])[0]

    def require_features(self, fingerprint: dict, name: str) -> None:
        """Refuse features of another extractor than those of the training, or another tower.

        Args:
            fingerprint (dict): Of the features.
            name (str): What made them, or where they are, for the message.

        Raises:
            ValueError: If they do not belong to the model; it names both, and what differs.
        """
        require_same_extractor(self.fingerprints, [fingerprint], self.checkpoint, [name])
        require_tower_features(self.model, [name], [fingerprint])

    def _plan(self, video: VideoFeatures) -> WindowPlan:
        if video.fingerprint is not None:
            where = f'the file with the features of {video.video_id}'
            self.require_features(video.fingerprint, where)
        return WindowPlan(
            self.model.head.units,
            len(video.values),
            video.row_seconds,
            video.duration,
            self.long_video.window_of(video.duration),
            self.long_video.overlap,
        )

    def _windows(self, videos, plans) -> Iterator[tuple[int, int, dict]]:
        """(place of the video, number of the window, packed inputs) of all windows."""
        for place, (video, plan) in enumerate(zip(videos, plans, strict=True)):
            given = dict(video_id=video.video_id, duration=plan.window, sentences=[])
            for window in range(len(plan)):
                features = plan.features(video.values, window)
                yield place, window, self.pipeline(dict(given, features=features))
