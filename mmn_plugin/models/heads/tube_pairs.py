"""Which sentences and tubes of a batch belong to the same video."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.structures import TubeDataSample


@dataclass
class TubePairs:
    """Every sentence of a batch with every tube of its own video.

    Attributes:
        sentence (np.ndarray): (Q,) int64, never falling.
        tube (np.ndarray): (Q,) int64, place among the batch's tubes, not among the video's.
    """

    sentence: np.ndarray
    tube: np.ndarray

    @classmethod
    def of(cls, data_samples: Sequence[TubeDataSample]) -> 'TubePairs':
        """The pairs of some videos, in order of videos, sentences, tubes."""
        sentences, tubes, first_sentence, first_tube = [], [], 0, 0
        for sample in data_samples:
            count, width = len(sample.sentences), len(sample.tubes)
            sentences.append(np.repeat(np.arange(count), width) + first_sentence)
            tubes.append(np.tile(np.arange(width), count) + first_tube)
            first_sentence, first_tube = first_sentence + count, first_tube + width
        return cls(np.concatenate(sentences), np.concatenate(tubes))

    def positives(self, target: np.ndarray) -> Tensor:
        """Each sentence's pair and cell of highest target, the first of equals.

        Args:
            target (np.ndarray): (Q, P).

        Returns:
            Tensor: (S, 2) int64.
        """
        begin = np.flatnonzero(np.diff(self.sentence, prepend=-1))  # (S,) first pair
        end = np.append(begin[1:], len(self.sentence))
        width = target.shape[1]
        best = np.array(
            [
                first * width + target[first:last].argmax()
                for first, last in zip(begin, end, strict=True)
            ]
        )
        return torch.from_numpy(np.stack([best // width, best % width], 1))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """``sentence`` and ``tube`` on a device, for which nobody waits."""
        return tuple(
            torch.from_numpy(index).to(device, non_blocking=True)
            for index in (self.sentence, self.tube)
        )
