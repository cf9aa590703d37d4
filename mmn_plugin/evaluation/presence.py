"""Sentences that do not occur, and how well predictions tell them from those that do."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .predictions import GroundingResult


def auroc(present: Sequence[float], absent: Sequence[float]) -> float:
    """Probability that a present sentence has more presence than an absent one, ties half.

    Raises:
        ValueError: If there is none of either.
    """
    if not len(present) or not len(absent):
        raise InputError(
            f'{len(present)} present and {len(absent)} absent sentences: at least one '
            'of each is needed'
        )
    present = torch.as_tensor(present, dtype=torch.float64)
    absent = torch.as_tensor(absent, dtype=torch.float64).sort().values
    # twice the pairs in the right order, ties being counted once: whole numbers
    twice = sum(torch.searchsorted(absent, present, right=right).sum() for right in (False, True))
    return float(twice) / (2 * len(present) * len(absent))


@dataclass
class Presence:
    """What predictions say about whether each of S sentences occurs.

    A sentence without a moment is rejected, unless nothing could be read in its answer.

    Attributes:
        values (Tensor): (S,) float32 presence; -infinity of a sentence that is rejected without a
            number, NaN where there is none.
        rejected (Tensor): (S,) bool, by the predictions themselves.
        unread (Tensor): (S,) bool, neither rejected nor answered.
        by_score (bool): Whether the presence is the score of the best moment, as not every sentence
            with a moment came with a presence of its own.
    """

    values: Tensor
    rejected: Tensor
    unread: Tensor
    by_score: bool

    @classmethod
    def of(cls, results: Sequence[GroundingResult]) -> 'Presence':
        """Presence of the sentences of all results, one after the other."""
        empty = torch.cat([result.moments[:, :1].isnan().flatten(1).any(1) for result in results])
        unread = torch.tensor([own == 'unread' for result in results for own in result.readings])
        values = torch.cat([result.presence for result in results])
        by_score = bool((values.isnan() & ~empty).any())
        if by_score:
            values = torch.cat([result.scores[:, 0] for result in results])
        rejected = empty & ~unread
        values = values.masked_fill(rejected & values.isnan(), -torch.inf)
        return cls(values, rejected, unread, by_score)

    def figures(self, absent: Tensor, group: Tensor, threshold: float | None) -> dict[str, float]:
        """Figures of a group's absent sentences, against its present ones.

        Args:
            absent (Tensor): (S,) bool, which sentences do not occur.
            group (Tensor): (S,) bool, which sentences to look at.
            threshold (float | None): Presence below which a sentence is rejected; None: only those
                are that the predictions reject.

        Returns:
            dict[str, float]: ``num_sentences``, the absent ones; in percent ``AUROC`` of presence,
            ``rejected`` (absent sentences that are), ``kept`` (present ones that are not), and
            ``accuracy``, the mean of these two. What cannot be computed is left out.
        """
        away, here = absent & group, ~absent & group
        figures = {'num_sentences': float(away.sum())}
        if here.any() and not self.values[group].isnan().any():
            figures['AUROC'] = 100 * auroc(self.values[here], self.values[away])
        unknown = self.values.isnan() & ~self.unread
        if threshold is not None and unknown[group].any():
            return figures
        rejected, kept = self.rejected, ~self.rejected & ~self.unread
        if threshold is not None:
            rejected = rejected | (self.values < threshold)
            kept = kept & (self.values >= threshold)
        figures['rejected'] = 100 * float(rejected[away].double().mean())
        if here.any():
            figures['kept'] = 100 * float(kept[here].double().mean())
            figures['accuracy'] = (figures['rejected'] + figures['kept']) / 2
        return figures

    def notes(self, threshold: float | None) -> list[str]:
        """What a reader of the figures should know."""
        unknown = int((self.values.isnan() & ~self.unread).sum())
        source = 'the score of their best moment' if self.by_score else 'as the predictions give it'
        notes = [f'presence of sentences: {source}']
        if unknown:
            left_out = 'AUROC' if threshold is None else 'AUROC and what the threshold rejects'
            notes = [
                f'{unknown} sentences have moments but neither presence nor scores: no {left_out}'
            ]
        elif self.unread.any():
            notes.append(f'{int(self.unread.sum())} sentences have no readable answer: no AUROC')
        if threshold is None:
            notes.append('no threshold of presence: only sentences without a moment are rejected')
        return notes
