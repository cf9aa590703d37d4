"""Videos and sentences that a batch is contrasted with, and what is known to belong together."""

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor


@dataclass
class Candidates:
    """Embeddings of V videos' moments and of their S sentences, and whose they are.

    Attributes:
        moments (Tensor): (V, P, J), L2-normalized.
        sentences (Tensor): (S, J), L2-normalized.
        ground_truth (Tensor | None): (S, 2), seconds; None where nothing is known of when.
        sentence_video (np.ndarray): (S,) int64, place in ``video_ids`` of a sentence's video.
        video_ids (list[str]): V ids; a video that occurs twice is the same video.
        texts (list[str] | None): S normalized texts; None where they play no role.
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
        return replace(self, moments=self.moments.detach(), sentences=self.sentences.detach())

    def sentence_video_ids(self) -> list[str]:
        """Id of each sentence's video."""
        return [self.video_ids[video] for video in self.sentence_video.tolist()]


Pairs = tuple[np.ndarray, np.ndarray]


def equal_pairs(left: list, right: list) -> Pairs:
    """All (i, j) with ``left[i] == right[j]``, as two (n,) int64 arrays."""
    places = {}
    for j, key in enumerate(right):
        places.setdefault(key, []).append(j)
    found = [places.get(key, ()) for key in left]
    rows = np.repeat(np.arange(len(left)), [len(js) for js in found])
    return rows, np.array([j for js in found for j in js], dtype=np.int64)


@dataclass
class NegativePool:
    """Candidates, and how they relate to the S sentences of this process's batch.

    Attributes:
        candidates (Candidates): V videos, S' sentences.
        same_video (Pairs): (sentence of the batch, video here) that belong together.
        same_video_sentences (Pairs): (sentence of the batch, sentence here) of the same video.
        same_text (Pairs | None): (sentence of the batch, sentence here) of the same text in
            different videos; None where text plays no role.
        first_sentence (int | None): Place here of the batch's first sentence; None where the
            batch is not part of this pool.
        log_weight (Tensor | None): (V,), logarithm of the weight of each video's moments and
            sentences as negatives; None means 1 for all.
    """

    candidates: Candidates
    same_video: Pairs
    same_video_sentences: Pairs
    same_text: Pairs | None = None
    first_sentence: int | None = None
    log_weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        own: Candidates,
        first_video: int | None = None,
        first_sentence: int | None = None,
        weight: float = 1.0,
    ) -> 'NegativePool':
        """Compare candidates with a batch.

        Args:
            candidates (Candidates): Of the batch, of all ranks' batches, or of a memory bank.
            own (Candidates): This process's batch.
            first_video (int, optional): Where the batch's videos begin among the candidates.
                Defaults to None: they are not part of them.
            first_sentence (int, optional): Likewise for its sentences. Defaults to None.
            weight (float): Weight of the candidates that are not this batch's. Defaults to 1.
        """
        video_ids, others = own.sentence_video_ids(), candidates.sentence_video_ids()
        log_weight = None
        if weight != 1:
            moments = candidates.moments
            log_weight = moments.new_full((len(moments),), math.log(weight))  # (V,)
            if first_video is not None:
                log_weight[first_video : first_video + len(own.video_ids)] = 0.0
        same_text = None
        if own.texts is not None:
            rows, columns = equal_pairs(own.texts, candidates.texts)
            elsewhere = np.array(
                [
                    video_ids[i] != others[j]
                    for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
                ],
                dtype=bool,
            )
            same_text = rows[elsewhere], columns[elsewhere]
        return cls(
            candidates,
            equal_pairs(video_ids, candidates.video_ids),
            equal_pairs(video_ids, others),
            same_text,
            first_sentence,
            log_weight,
        )
