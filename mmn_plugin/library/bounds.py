"""What a search compares: segments and sentences as tensors, margins, and cutoffs of their sums."""

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .hits import Score
from .segment import Segment

CELLS = 1 << 21  # sums held at once: 8 MB
_CLASSES = 16
# Parts of the range of each product but the last, by the number of spaces: 576 cells at most.
_PARTS = {1: 1, 2: 64, 3: 24, 4: 8, 5: 4}
_GRID, _ROUNDS = 16, 3  # the last product is found to 1 / 4,096 of its range


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


class Cutoff:
    """For each of S sentences, weights w > 0 of the spaces and a number that ``sum(w * products)``
    of every moment exceeds whose score is at least a given one.

    Scores rise in every product. Cut the range of all products but the last into cells. A moment
    in a cell whose score reaches the given one has a last product of at least the one that reaches
    it from the cell's upper corner; so its sum is at least that of the cell's lower corner and this
    product, and the least of these over all cells is the cutoff. It is tight where the set of
    products of sufficient scores is convex, as it is for scores whose logarithm is concave.

    Args:
        score (Score): What makes one score of the products.
        reach (Mapping[str, np.ndarray]): (S,) of each space, no less than any absolute product.
        lengths (Tensor): (L, C) lengths of moments in C classes, float64: the least and the largest
            and, with ``trust``, each with the least and the largest trust. A score is highest at
            one of them.
        trust (Tensor | None): (L, C) likewise.

    Attributes:
        reach (Tensor): (spaces, S) float64, of the argument.
        weights (Tensor): (spaces, S) float64, of which ``weights * reach`` is 1 at most.
        cutoff (Tensor): (C, S) float64.
    """

    def __init__(
        self,
        score: Score,
        reach: Mapping[str, np.ndarray],
        lengths: Tensor,
        trust: Tensor | None,
    ) -> None:
        self.score, self.spaces = score, tuple(score.spaces)
        stacked = np.stack([reach[space] for space in self.spaces])  # (D, S)
        self.reach = torch.from_numpy(stacked).clamp(min=1e-300)
        self._lengths, self._trust = lengths, trust
        self._least = torch.full(self.reach.shape[1:], -torch.inf, dtype=torch.double)
        self.weights = 1 / self.reach
        count = lengths.shape[1], self.reach.shape[1]
        self.cutoff = torch.full(count, -torch.inf, dtype=torch.double)

    def aim(self, products: Tensor) -> None:
        """Take as weights what the score gains in each product (D, S), float64, at these."""
        slopes = torch.empty_like(products)
        points = products[:, None, None]
        for place in range(len(self.spaces)):
            step = torch.zeros_like(points)
            step[place] = 1e-3 * self.reach[place]
            gain = self._highest(points + step) - self._highest(points - step)  # (1, C, S)
            slopes[place] = self.reach[place] * gain[0, 0]
        slopes = slopes / slopes.amax(0)
        self.weights = slopes.nan_to_num(1.0, 1.0, 1.0).clamp(1e-6, 1) / self.reach
        self._least.fill_(-torch.inf)

    def update(self, least: np.ndarray) -> None:
        """Compute the cutoff of scores (S,)."""
        least = torch.from_numpy(least)
        if (least > self._least).any():
            self._least = least
            self.cutoff = torch.einsum('ds,dncs->ncs', self.weights, self._corners()).amin(0)

    def _corners(self) -> Tensor:
        """(D, N, C, S) lower corners of all cells, with the last product that reaches the threshold
        from the upper ones.
        """
        spaces, classes = len(self.spaces), self._lengths.shape[1]
        parts = _PARTS.get(spaces, 2)
        top = self.reach[:, None, None].expand(spaces, 1, classes, -1)
        steps = torch.linspace(0, 1, parts + 1, dtype=torch.double)[:, None, None]
        edges = []  # (parts + 1, C, S) of each space but the last
        for place in range(spaces - 1):
            low = self._reaching(top, place)[0]  # (C, S), with all others at their highest
            low = torch.minimum(low, top[place, 0])
            edges.append(low + (top[place, 0] - low) * steps)
        count = parts ** (spaces - 1)
        cell = np.unravel_index(np.arange(count), (parts,) * (spaces - 1)) if edges else ()
        upper = [e[i + 1] for e, i in zip(edges, cell, strict=True)]
        last = self._reaching([*upper, top[-1].expand(count, -1, -1)], spaces - 1)
        return torch.stack([*(e[i] for e, i in zip(edges, cell, strict=True)), last])

    def _reaching(self, points: Sequence[Tensor], place: int) -> Tensor:
        """(N, C, S) the product in a space below which no score reaches the threshold, with the
        others as in points (N, C, S) of each space: infinity if none does, at the least -reach.
        """
        reach = self.reach[place].expand_as(points[place])
        low, high = -reach, reach
        steps = torch.linspace(0, 1, _GRID, dtype=torch.double)
        never = None
        for _ in range(_ROUNDS):
            grid = low + (high - low) * steps[:, None, None, None]  # (G, N, C, S)
            products = [grid if p == place else point[None] for p, point in enumerate(points)]
            reached = ~(self._highest(products) < self._least)
            if never is None:
                never = ~reached[-1]
            index = reached.byte().argmax(0)[None]  # the first that does
            low, high = (grid.gather(0, at)[0] for at in ((index - 1).clamp(min=0), index))
        return torch.where(never, torch.inf, low)

    def _highest(self, points: Sequence[Tensor]) -> Tensor:
        """(..., C, S) scores of products of each space, at the best length and trust."""
        shape = len(self._lengths), *[1] * (points[0].dim() - 2), -1, 1
        trust = None if self._trust is None else self._trust.view(shape)
        products = {s: point[None] for s, point in zip(self.spaces, points, strict=True)}
        return self.score(products, self._lengths.view(shape), trust).amax(0)


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
