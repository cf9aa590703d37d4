"""Batches of an epoch from a given one on."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler


class ResumableBatchSampler(Sampler):
    """Leave out the batches of an epoch that were trained on before, without loading them.

    Args:
        batch_sampler (Sampler): Yields lists of indices; its order must follow from its seed and
            epoch, as that of MMEngine's ``DefaultSampler`` does.
        rank (int): Rank, part of every sample's seed.

    Attributes:
        first (int): Batches to leave out of the next epoch.
        epoch (int): The epoch, part of every sample's seed.
        seed (int): The run's seed, likewise.
    """

    def __init__(self, batch_sampler, rank: int):
        self.batch_sampler = batch_sampler
        self.rank = rank
        self.first = self.epoch = self.seed = 0

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        """Yield batches of (index, seed of the sample)."""
        key = (self.seed, self.epoch, self.rank)
        batches = enumerate(self.batch_sampler)
        for place, batch in islice(batches, self.first, None):
            yield [(index, (*key, place, row)) for row, index in enumerate(batch)]
