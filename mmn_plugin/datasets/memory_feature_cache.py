"""Pooled features in memory that a data loader's workers share."""

import mmap
from collections.abc import Sequence

import numpy as np

from .feature_cache import FeatureCache


class MemoryFeatureCache(FeatureCache):
    """One array for all videos, filled as they are read; forked workers fill and read the same.

    It takes 4 * V * R * D bytes once every video was read (TACoS 0.3 GB, Charades-STA 2.8 GB,
    ActivityNet Captions 5.1 GB for their training sets), once per rank: its workers share it.
    A pickled copy is empty, so spawned workers would each keep their own.

    Args:
        video_ids (Sequence[str]): The videos.
        shape (tuple[int, int]): R and D.

    Raises:
        OSError: If there is not as much memory.
    """

    def __init__(self, video_ids: Sequence[str], shape: tuple[int, int]):
        self.video_ids = list(video_ids)
        self.shape = tuple(shape)
        self._slots = {video_id: slot for slot, video_id in enumerate(self.video_ids)}
        # Not torch's shared memory: /dev/shm is small in many containers.
        count = len(self.video_ids)
        features = mmap.mmap(-1, max(1, 4 * count * self.shape[0] * self.shape[1]))
        self._features = np.frombuffer(features, np.float32)[: count * np.prod(self.shape)]
        self._features = self._features.reshape(count, *self.shape)  # (V, R, D)
        marks = mmap.mmap(-1, max(1, 16 * count))
        self._marks = np.frombuffer(marks, np.uint8)[: 16 * count].reshape(count, 16)

    def get(self, video_id: str, fingerprint: bytes) -> np.ndarray | None:
        """A copy, or None; also where another process writes it at this moment."""
        slot = self._slots.get(video_id)
        if slot is None or self._marks[slot].tobytes() != fingerprint:
            return None
        features = self._features[slot].copy()  # (R, D)
        return features if self._marks[slot].tobytes() == fingerprint else None

    def put(self, video_id: str, fingerprint: bytes, features: np.ndarray) -> None:
        """Write it; marked as whole when it is."""
        slot = self._slots.get(video_id)
        if slot is None or features.shape != self.shape:
            return
        self._marks[slot] = 0
        self._features[slot] = features
        self._marks[slot] = np.frombuffer(fingerprint, np.uint8)

    def __getstate__(self) -> dict:
        return dict(video_ids=self.video_ids, shape=self.shape)

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['video_ids'], state['shape'])

    def __deepcopy__(self, memo) -> 'MemoryFeatureCache':
        return self  # of a dataset's subset: found by the video's id, it serves both
