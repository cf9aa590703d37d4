"""What every feature extractor has in common."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mmn_plugin.features import VideoReader

from .parallel import prefetch


class FeatureExtractor(ABC):
    """Turns a video into clip features, one row per ``stride`` frames.

    A video of any length goes through in constant memory: frames come one after another from
    `reader`, `batches` prepares some of them at a time, `describe_batch` makes rows of these. So
    decoding and preparing can run ahead while a batch is described.

    Attributes:
        fps (float): Frames per second that are looked at.
        stride (int): Frames from one row to the next.
        workers (int): Workers that it is best run with; 0: none but the caller.
        threads (bool): Whether workers are threads that prepare batches for the one extractor,
            which is on an accelerator, rather than processes with an extractor each. With threads,
            `reader`, `batches` and `describe_batch` are called by several at once. Default: False.
    """

    fps: float
    stride: int
    workers = 2
    threads = False

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
        """Frames of a file, in the form that `batches` takes."""

    @abstractmethod
    def batches(self, frames: Iterable[np.ndarray]) -> Generator[Any, None, None]:
        """Prepare frames for `describe_batch`, as many at a time as it shall take together."""

    @abstractmethod
    def describe_batch(self, batch: Any) -> np.ndarray:
        """Features (n, D) float32 of a batch, one row per started ``stride`` frames."""

    def blocks(self, frames: Iterable[np.ndarray], ahead: int = 0) -> Iterator[np.ndarray]:
        """Describe a stream of frames.

        Args:
            frames (Iterable[np.ndarray]): As `reader` gives them.
            ahead (int): Batches that a thread prepares meanwhile; memory grows with it, the
                features do not depend on it. Defaults to 0: no thread.

        Yields:
            np.ndarray: (n, D) float32.
        """
        with closing(prefetch(self.batches(frames), ahead)) as batches:
            for batch in batches:
                yield self.describe_batch(batch)

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
                They are never all in memory at once; a thread reads them ahead.

        Returns:
            np.ndarray: (T, D) float32, one row per ``stride`` frames; the last row may stand for
            fewer.

        Raises:
            VideoReadError: If the file cannot be decoded.
        """
        frames = self.reader(video) if isinstance(video, str | Path) else video
        return np.concatenate(list(self.blocks(frames, ahead=1)))
