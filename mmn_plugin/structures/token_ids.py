"""Token ids on the host."""

from collections.abc import Iterator, Sequence


class TokenIds:
    """Ids of S sentences, without padding; no sequence to whatever looks for tensors to move.

    Preprocessors and DistributedDataParallel walk through every list of a batch, which takes
    longer than a step's text where it holds thousands of numbers.

    Args:
        ids (Sequence[Sequence[int]]): One entry per sentence.
    """

    def __init__(self, ids: Sequence[Sequence[int]]):
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.ids)

    def take(self, rows: Sequence[int]) -> 'TokenIds':
        """Some of the sentences."""
        return TokenIds([self.ids[row] for row in rows])
