"""Segments and sentences as a search compares them: tensors on its device, norms and margins."""

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .cutoff import Cutoff
from .hits import Score
from .segment import Segment

CELLS = 1 << 21  # sums held at once: 8 MB
_CLASSES = 16


class Part:
    """A segment's arrays as tensors on the device."""

    def __init__(
        self, place: int, segment: Segment, spaces: tuple[str, ...], device: torch.device
    ) -> None:
        self.place, self.segment, self.spaces, self.device = place, segment, spaces, device
        self.rows = segment.rows
        self.first = {space: self._tensor(segment.first[space]) for space in spaces}
        self.others = {s: [self._tensor(part) for part in segment.others[s]] for s in spaces}
        self.rest = {space: self._tensor(segment.rest[space]) for space in spaces}
        self.lengths = self._tensor(segment.lengths)
        self.trust = None if segment.trust is None else self._tensor(segment.trust)
        self.classes: Tensor | None = None

    def _tensor(self, array: np.ndarray) -> Tensor:
        with warnings.catch_warnings():  # nobody writes to it
            warnings.filterwarnings('ignore', 'The given NumPy array is not writable')
            return torch.as_tensor(array, device=self.device)

    def norm(self, space: str) -> float:
        """No less than the largest norm of a vector."""
        squares, size = 0.0, CELLS // 64
        for start in range(0, self.rows, size):
            part = slice(start, start + size)
            first = self.first[space][part].double().square().sum(1)
            rest = self.rest[space][part, 0].double().square()
            squares = max(squares, (first + rest).max().item())
        return squares**0.5 * (1 + 1e-9)

    @functools.cache  # noqa: B019  (as long as the part)
    def slack(self, space: str) -> float:
        """The mean norm of what the first level leaves."""
        return self.rest[space][:, 0].mean().item()

    def chunks(self, allowed: np.ndarray | None, sentences: int) -> Iterator[tuple]:
        """Rows that are looked at at once, a slice or (r,) places, with a mask of them or None."""
        size, count, mask, places = max(CELLS // sentences, 1), self.rows, None, None
        if allowed is not None and not allowed.all():
            mask = torch.from_numpy(allowed).to(self.device)
            if 2 * np.count_nonzero(allowed) < self.rows:
                places, mask = mask.nonzero().flatten(), None
                count = len(places)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield part if places is None else places[part], None if mask is None else mask[part]


class About:
    """What is known of the moments of all segments together: norms, and lengths by class."""

    def __init__(self, parts: Sequence[Part], spaces: tuple[str, ...]) -> None:
        self.norms = {
            space: max([part.norm(space) for part in parts], default=0) for space in spaces
        }
        edges = torch.empty(0)
        if len(spaces) == 1 and parts:  # with several the cells of their products cost enough
            lengths = [part.lengths[:: max(1, part.rows // 4096)] for part in parts]
            shares = torch.linspace(0, 1, _CLASSES + 1)[1:-1].double()
            edges = torch.cat(lengths).cpu().double().quantile(shares).float().unique()
        ends = torch.tensor([torch.inf, -torch.inf])[:, None].repeat(1, len(edges) + 1)
        lengths, trust = ends.clone(), ends.clone()
        for part in parts:
            part.classes = torch.bucketize(part.lengths, edges.to(part.device), out_int32=True)
            _widen(lengths, part.lengths, part.classes)
            _widen(trust, torch.ones(1) if part.trust is None else part.trust, part.classes)
        present = lengths[0] <= lengths[1]
        lengths, trust = (torch.where(present, ends, 1.0).double() for ends in (lengths, trust))
        self.lengths, self.trust = lengths, None
        if any(part.trust is not None for part in parts):
            self.lengths, self.trust = lengths[[0, 0, 1, 1]], trust[[0, 1, 0, 1]]

    def cutoff(self, score: Score, queries: Mapping[str, np.ndarray]) -> Cutoff:
        """That of sentences (S, J) per space."""
        reach = {}
        for space in score.spaces:
            size = self.norms[space] * np.linalg.norm(queries[space], axis=1)
            reach[space] = size * (1 + 1e-9)
        return Cutoff(score, reach, self.lengths, self.trust)


def _widen(ends: Tensor, values: Tensor, classes: Tensor) -> None:
    """Make the least and the largest value (2, C) of each class hold for these, too."""
    values, classes = values.cpu().expand(len(classes)), classes.cpu().long()
    for row, how in zip(ends, ('amin', 'amax'), strict=True):
        row.scatter_reduce_(0, classes, values, how)


class Sentences:
    """A block of S sentences in a segment's coordinates, with the weights of a cutoff."""

    def __init__(self, part: Part, queries: Mapping[str, np.ndarray]) -> None:
        self.part, self.exact, self.rests, self.starts = part, {}, {}, {}
        for space in part.spaces:
            exact = queries[space] @ part.segment.rotation[space].T.astype(np.float64)  # (S, J)
            squares = np.cumsum(exact[:, ::-1] ** 2, 1)[:, ::-1]
            squares = np.pad(squares, ((0, 0), (0, 1)))
            starts = list(part.segment.levels[space])
            self.exact[space], self.starts[space] = exact, [*starts, exact.shape[1]]
            self.rests[space] = np.sqrt(squares[:, starts]) * (1 + 2.0**-22)

    def weigh(self, weights: np.ndarray, reach: np.ndarray) -> None:
        """Take weights (D, S) of the spaces, and the largest products (D, S) there can be.

        Makes ``first`` (L, S) and ``others`` (S, their number) of each level, ``rest`` (K, S),
        float32 of each space, the ``margin`` (S,) of sums, and the ``order`` of the spaces, those
        first whose further coordinates tell most.
        """
        self.first, self.others, self.rest = {}, {}, {}
        for space, weight in zip(self.exact, weights, strict=True):
            near = self._near(self.exact[space].T * weight)
            self.first[space] = near[: self.starts[space][0]]
            parts = near[self.starts[space][0] :].split(
                [part.shape[1] for part in self.part.others[space]]
            )
            self.others[space] = [part.T.contiguous() for part in parts]
            self.rest[space] = self._near(self.rests[space].T * weight)
        slack = {s: self.part.slack(s) * self.rest[s][0].mean().item() for s in self.rest}
        self.order = sorted(slack, key=slack.get, reverse=True)
        terms = sum(rows[-1] + 16 * len(rows) for rows in self.starts.values())
        self.margin = _margin(terms, (weights * reach).sum(0))

    def _near(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.part.device)


def _margin(terms: int, size: np.ndarray) -> np.ndarray:
    """What float32 may be off by, of so many terms whose absolute values add up to ``size``."""
    share = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    if torch.get_float32_matmul_precision() != 'highest':
        share += 2.0**-7
    return share * size + terms * 2.0**-126  # and what is too small for float32
