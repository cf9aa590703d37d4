"""Videos and sentences that can be negatives."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass
class Candidates:
    """Embeddings of V videos' moments and of their S sentences, and whose they are.

    Attributes:
        moments (Tensor): (V, P, J), L2-normalised.
        sentences (Tensor): (S, J), L2-normalised.
        ground_truth (Tensor | None): (S, 2), seconds; None where nothing is known of when.
        sentence_video (np.ndarray): (S,) int64, place in ``video_ids`` of a sentence's video.
        video_ids (list[str]): V ids; a video that occurs twice is the same video.
        texts (list[str] | None): S normalised texts; None where they play no role.
        iou (Tensor | None): (S, P), IoU of the moments of its video with a sentence's ground
            truth; None where it plays no role.
    """

    moments: Tensor
    sentences: Tensor
    ground_truth: Tensor | None
    sentence_video: np.ndarray
    video_ids: list[str]
    texts: list[str] | None = None
    iou: Tensor | None = None

    def detached(self) -> 'Candidates':
        """The same without a way back to the model."""
        return Candidates(
            self.moments.detach(),
            self.sentences.detach(),
            self.ground_truth,
            self.sentence_video,
            self.video_ids,
            self.texts,
            self.iou,
        )

    def sentence_video_ids(self) -> list[str]:
        """Id of each sentence's video."""
        return [self.video_ids[video] for video in self.sentence_video.tolist()]
