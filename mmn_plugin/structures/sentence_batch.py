"""The sentences of a batch, laid end to end."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .token_ids import TokenIds


class SentenceBatch(NamedTuple):
    """All sentences of a batch of B videos, video by video; ragged is flat plus an index.

    Attributes:
        input_ids (Tensor): (S, L) int64 token ids, padded to the longest sentence.
        attention_mask (Tensor): (S, L) int64, 1 at tokens and 0 at padding.
        video (Tensor): (S,) int64, place in the batch of the video a sentence belongs to,
            never falling.
        token_ids (TokenIds | None): The same ids on the host; None where nobody has them there.
            With them sentences are encoded by length without waiting for the device. Defaults
            to None.
    """

    input_ids: Tensor
    attention_mask: Tensor
    video: Tensor
    token_ids: TokenIds | None = None

    @property
    def lengths(self) -> list[int] | None:
        """Tokens of each sentence, where they are known on the host."""
        return None if self.token_ids is None else list(map(len, self.token_ids))

    def take(self, rows: Sequence[int]) -> 'SentenceBatch':
        """Some of the sentences, padded to the longest of them where lengths are known."""
        index = torch.tensor(rows, dtype=torch.int64)
        index = index.to(self.input_ids.device, non_blocking=True)
        token_ids, length = None, self.input_ids.shape[1]
        if self.token_ids is not None:
            token_ids = self.token_ids.take(rows)
            length = max(map(len, token_ids), default=0)
        return SentenceBatch(
            self.input_ids[index, :length],
            self.attention_mask[index, :length],
            self.video[index],
            token_ids,
        )
