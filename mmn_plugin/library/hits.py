"""Scores of moments in float64, the best of them, and the full scan that finds them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .segment import Segment

# Pairs of a moment and a sentence whose vectors are compared at once: 8 MB with 256 coordinates.
PAIRS = 1 << 13
_CELLS = 1 << 20  # scores of a full scan held at once
# How much a score may fall, as a share of it, where a product rises: rounding, of float32 too.
_RISING = 1e-6


class Score(Protocol):
    """One score of a moment from its products with a sentence.

    It rises (or stays) in every product, from minus to plus infinity; it only rises or only falls
    in the moment's length, and so it does in its trust. It works element by element: the same
    numbers give the same score wherever they stand.

    Attributes:
        spaces (tuple[str, ...]): Spaces that it needs.
    """

    spaces: tuple[str, ...]

    def __call__(
        self, products: Mapping[str, Tensor], lengths: Tensor, trust: Tensor | None
    ) -> Tensor:
        """Scores of any shape.

        Args:
            products (Mapping[str, Tensor]): float64 per space; cosines where vectors are unit.
            lengths (Tensor): float64, moments' lengths as shares of what was looked at at once;
                broadcasts with the products.
            trust (Tensor | None): float64 likewise; None: 1 for all.

        Returns:
            Tensor: float64.
        """


class Hits(NamedTuple):
    """The best moments of S sentences, best first; ties in the order of segments and rows.

    Attributes:
        segment (np.ndarray): (S, n) int32, place of the segment; -1 where there is no n-th moment.
        row (np.ndarray): (S, n) int64, row in it; -1 likewise.
        score (np.ndarray): (S, n) float64; NaN likewise.
    """

    segment: np.ndarray
    row: np.ndarray
    score: np.ndarray


def exact_scores(
    segment: Segment,
    score: Score,
    queries: Mapping[str, np.ndarray],
    rows: np.ndarray,
    sentences: np.ndarray,
) -> np.ndarray:
    """Scores of pairs of a stored moment and a sentence in float64.

    Equal vectors have equal scores to the bit wherever they stand, so that ties are ties.

    Args:
        segment (Segment): The moments.
        score (Score): What makes one score of the products.
        queries (Mapping[str, np.ndarray]): (S, J) float64 per space, in the segment's coordinates.
        rows (np.ndarray): (P,) rows of the segment.
        sentences (np.ndarray): (P,) rows of ``queries``.

    Returns:
        np.ndarray: (P,) float64.
    """
    scores = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        chosen = np.asarray(rows[part])
        # PyTorch computes what does not fill a vector register by other code: whole ones only.
        padded = np.pad(np.arange(len(chosen)), (0, -len(chosen) % 64), mode='edge')
        products = {}
        for space in score.spaces:
            vectors = segment.vectors(space, chosen).astype(np.float64)  # (p, J)
            vectors *= queries[space][sentences[part]]
            products[space] = torch.from_numpy(vectors.sum(1)[padded])
        found = score(products, *_lengths_and_trust(segment, chosen[padded]))
        scores[part] = found[: len(chosen)].numpy()
    return scores


def _lengths_and_trust(segment: Segment, rows: np.ndarray) -> list[Tensor | None]:
    """Those of some moments, as a score takes them."""
    columns = (segment.lengths, segment.trust)
    return [None if c is None else torch.from_numpy(c[rows].astype(np.float64)) for c in columns]


def _least(thresholds: np.ndarray) -> np.ndarray:
    """Scores below which a bound, or a product that was rounded, rules a moment out."""
    return thresholds - _RISING * np.abs(np.nan_to_num(thresholds, neginf=0.0))


class Best:
    """The best exact scores so far of a block of sentences, and the thresholds they set."""

    def __init__(self, count: int, top_n: int) -> None:
        self.count, self.top_n = count, top_n
        self.sentence = np.empty(0, np.int64)
        self.segment, self.row = np.empty(0, np.int32), np.empty(0, np.int64)
        self.score = np.empty(0)
        self.threshold = np.full(count, -np.inf)

    def add(self, place: int, rows: np.ndarray, sentences: np.ndarray, scores: np.ndarray) -> None:
        """Keep the best; no pair may be added twice."""
        self.sentence = np.concatenate((self.sentence, sentences))
        self.segment = np.concatenate((self.segment, np.full(len(rows), place, np.int32)))
        self.row = np.concatenate((self.row, rows))
        self.score = np.concatenate((self.score, scores))
        order = np.lexsort((self.row, self.segment, -self.score, self.sentence))
        keep = order[ranks(self.sentence[order]) < self.top_n]
        self.sentence, self.segment = self.sentence[keep], self.segment[keep]
        self.row, self.score = self.row[keep], self.score[keep]
        self.expect(self.sentence[:0], self.score[:0])

    def expect(self, sentences: np.ndarray, scores: np.ndarray) -> None:
        """Raise thresholds by scores of moments that `add` has not seen, each of another moment."""
        sentences = np.concatenate((self.sentence, sentences))
        scores = np.concatenate((self.score, scores))
        order = np.lexsort((-scores, sentences))
        last = order[ranks(sentences[order]) == self.top_n - 1]
        self.threshold[sentences[last]] = np.fmax(self.threshold[sentences[last]], scores[last])

    def least(self) -> np.ndarray:
        """(S,) scores below which a bound rules a moment out."""
        return _least(self.threshold)

    def hits(self) -> Hits:
        """As of `Hits`."""
        shape = self.count, self.top_n
        found = Hits(np.full(shape, -1, np.int32), np.full(shape, -1), np.full(shape, np.nan))
        place = self.sentence, ranks(self.sentence)
        found.segment[place], found.row[place] = self.segment, self.row
        found.score[place] = self.score
        return found


def brute_force(
    segments: Sequence[Segment],
    queries: Mapping[str, Tensor],
    score: Score,
    top_n: int,
    allowed: Sequence[np.ndarray] | None = None,
) -> Hits:
    """What `ExactSearch` gives, by comparing everything in float64.

    Args and errors: as of it.
    """
    queries = checked(queries, top_n, segments, score)
    best = Best(len(next(iter(queries.values()))), top_n)
    size = max(_CELLS // max(best.count, 1), 1)
    for place, segment in enumerate(segments):
        turned = {
            space: queries[space] @ segment.rotation[space].T.astype(np.float64)
            for space in score.spaces
        }
        for start in range(0, segment.rows, size):
            rows = np.arange(start, min(start + size, segment.rows))
            if allowed is not None:
                rows = rows[np.asarray(allowed[place], bool)[rows]]
            products = {
                space: torch.from_numpy(
                    segment.vectors(space, rows).astype(np.float64) @ turned[space].T
                )
                for space in score.spaces
            }
            scores = score(products, *_lengths_and_trust(segment, rows[:, None]))
            scores = scores.expand(len(rows), best.count).numpy()  # (r, S)
            # What is the n-th best but for rounding is scored as ties are.
            kept = min(top_n, len(rows))
            nth = -np.partition(-scores, kept - 1, axis=0)[kept - 1] if kept else best.threshold
            threshold = np.fmax(nth, best.threshold) if kept == top_n else best.threshold
            local, sentences = np.nonzero(~(scores < _least(threshold)))
            found = exact_scores(segment, score, turned, rows[local], sentences)
            best.add(place, rows[local], sentences, found)
    return best.hits()


def checked(queries, top_n: int, segments: Sequence[Segment], score: Score) -> dict:
    """(S, J) float64 of the score's spaces."""
    if top_n < 1:
        raise InputError(f'top_n={top_n}; it must be at least 1')
    missing = [space for space in score.spaces if space not in queries]
    if missing:
        raise InputError(f'no vectors of sentences in {missing}, which the score needs')
    found = {}
    for space in score.spaces:
        rows = torch.as_tensor(queries[space]).detach().cpu().double().numpy()
        widths = {segment.rotation[space].shape[1] for segment in segments}
        if rows.ndim != 2 or widths - {rows.shape[1]}:
            raise InputError(
                f'sentences in {space} are {rows.shape}; segments have vectors of {sorted(widths)}'
            )
        if not np.isfinite(rows).all():
            raise InputError(f'vectors of sentences in {space} hold NaN or Inf')
        found[space] = rows
    return found


def ranks(groups: np.ndarray) -> np.ndarray:
    """Place of each element in its run of equal ones."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
