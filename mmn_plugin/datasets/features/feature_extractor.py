"""What every feature extractor has in common."""
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mmn_plugin.features import VideoReader


class FeatureExtractor(ABC):
    """Turns a video into clip features, one row per ``stride`` frames.

    A video of any length goes through in constant memory: frames come one after another from
    `reader`, rows leave in `blocks`.

    Attributes:
        fps (float): Frames per second that are looked at.
        stride (int): Frames from one row to the next.
        workers (int): Processes that it is best run in, beside each other; 0: the calling one.
    """

    fps: float
    stride: int
    workers = 2

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that decides what the features are, but for ``stride`` and ``fps``, as one string."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Feature size D."""

    @abstractmethod
    def reader(self, video: str | Path) -> VideoReader:
        """Frames of a file, in the form that `blocks` takes."""

    @abstractmethod
    def blocks(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Describe frames: (n, D) float32 at a time."""

    @property
    def settings(self) -> dict:
        """What identifies this extractor: equal settings, equal features."""
        return dict(extractor=self.identity, stride=self.stride, fps=self.fps)

    @property
    def fingerprint(self) -> dict:
        """The settings and the feature size: what a checkpoint keeps (see `fingerprint`)."""
        return dict(self.settings, feature_size=self.num_features)

    def __call__(self, video: str | Path | Iterable[np.ndarray]) -> np.ndarray:
        """Describe a video.

        Args:
            video (str | Path | Iterable[np.ndarray]): A file, or frames as `reader` gives them.
                They are never all in memory at once.

        Returns:
            np.ndarray: (T, D) float32, one row per ``stride`` frames; the last row may stand for
            fewer.

        Raises:
            VideoReadError: If the file cannot be decoded.
        """
        frames = self.reader(video) if isinstance(video, str | Path) else video
        return np.concatenate(list(self.blocks(frames)))
