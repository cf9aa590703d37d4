"""Pooled features that were computed before."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

FORMAT = 1  # of what is stored; another one is not found


class FeatureCache(ABC):
    """Keeps the pooled features of videos, (R, D) float32, each under a fingerprint.

    The fingerprint says what they were made from (`fingerprint`), so that features of a changed
    source, or of other settings, are never found.
    """

    @abstractmethod
    def get(self, video_id: str, fingerprint: bytes) -> np.ndarray | None:
        """The features of a video, writable, or None where they are not there."""

    @abstractmethod
    def put(self, video_id: str, fingerprint: bytes, features: np.ndarray) -> None:
        """Keep the features of a video; failing to is no error."""


def fingerprint(sources: Sequence[tuple], settings: dict) -> bytes:
    """16 bytes for the sources of a video's features and the settings of the pooling.

    Args:
        sources (Sequence[tuple]): Path, key and version (size, time of change, place on the disk)
            of every file.
        settings (dict): What else decides the result.
    """
    text = json.dumps([FORMAT, list(sources), settings], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
