"""The sentences of a batch, laid end to end."""
from typing import NamedTuple

from torch import Tensor


class SentenceBatch(NamedTuple):
    """All sentences of a batch of B videos, video by video; ragged is flat plus an index.

    Attributes:
        input_ids (Tensor): (S, L) int64 token ids, padded to the longest sentence.
        attention_mask (Tensor): (S, L) int64, 1 at tokens and 0 at padding.
        video (Tensor): (S,) int64, place in the batch of the video a sentence belongs to,
            never falling.
    """

    input_ids: Tensor
    attention_mask: Tensor
    video: Tensor
