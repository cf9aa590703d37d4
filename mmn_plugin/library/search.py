"""The first n moments of all segments, proven: search by bounds over rotated vectors."""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .hits import PAIRS, Best, Hits, Score, brute_force, checked, exact_scores, joined
from .segment import Segment

__all__ = ['ExactSearch', 'Hits', 'Score', 'brute_force']

# Bounds held at once in each space: 8 MB. Sentences that are searched for together share products.
_CELLS = 1 << 21
_SENTENCES = 64  # no more than 256
_FULL = 1 << 19  # coordinates that are made float32 at once, for a full scan
# More moments than these shares left, and reading all coordinates in their order is faster.
_LEFT_ALONE, _LEFT_TOGETHER = 0.5, 0.15
_SAMPLE, _SEEDS = 1 << 15, 64  # moments that the first threshold is of
_CLASSES, _GRID = 16, 24


class ExactSearch:
    """Search segments for the moments of the best scores, without reading most coordinates.

    The answer is that of a full scan in float64 (`brute_force`): the same moments in the same
    order. Vectors are rotated so that their first coordinates hold most of their norm. With the
    first l coordinates of a moment x and of a sentence q (Cauchy-Schwarz)::

        x . q  <=  x_l . q_l + |rest of x| |rest of q|

    in each space, and the score rises in every product: a moment whose score of these bounds is
    below the n-th best known one is out. So all moments are compared by the segment's first level;
    a threshold comes from exact scores of moments with the best bounds; moments are dropped by
    each space alone (what the score could be with the other spaces at their highest), then by the
    bounds of all spaces together, and so on by the next level. What remains is scored in float64.
    Where the first level leaves too many, all coordinates are read in the order they lie.

    Rounding. Bounds are computed in float32, of unit roundoff u = 2^-24. A sum of l products in any
    order, with the sentence rounded to float32, is off by at most ``gamma(l + 1) |x_l| |q_l|``,
    where ``gamma(n) = n u / (1 - n u)`` (Higham, Accuracy and Stability, 3.1); the product with the
    rest, adding it, and taking it away again where all coordinates are read, by less than
    ``8 u |x| |q|``. Stored norms are rounded up. So ``gamma(J + 16) max|x| |q|`` is added to every
    bound; and 2^-7 of ``max|x| |q|`` where PyTorch was allowed less than float32
    (`torch.set_float32_matmul_precision`).

    Several threads may search at once.

    Args:
        segments (Sequence[Segment]): What is searched.
        score (Score): What makes one score of the products.
        device (str): Where bounds are computed; but for the CPU, vectors are copied there. Exact
            scores are the CPU's. Defaults to ``'cpu'``.
        full_scan (bool): Read all coordinates of all moments, for the same answer. Defaults to
            False.

    Attributes:
        last (dict[str, int | list[int]]): Of the last search: ``moments`` compared, pairs ``left``
            after each step (each space alone, all together, by level), ``full_scans`` and
            ``coordinates`` read.

    Raises:
        InputError: If a segment lacks a space of the score.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        score: Score,
        device: str = 'cpu',
        full_scan: bool = False,
    ) -> None:
        for place, segment in enumerate(segments):
            missing = [space for space in score.spaces if space not in segment.spaces]
            if missing:
                raise InputError(
                    f'segment {place} has the spaces {list(segment.spaces)}, and the score needs '
                    f'{missing} as well'
                )
        self.segments, self.score = list(segments), score
        self.full_scan = full_scan
        self._parts = [_Part(one, score.spaces, torch.device(device)) for one in segments]
        self.last: dict = {}

    def __call__(
        self,
        queries: Mapping[str, Tensor],
        top_n: int,
        allowed: Sequence[np.ndarray] | None = None,
    ) -> Hits:
        """The best moments of sentences.

        Args:
            queries (Mapping[str, Tensor]): (S, J) per space, vectors of any norm.
            top_n (int): n, moments per sentence.
            allowed (Sequence[np.ndarray], optional): (M,) bool of each segment: moments that are
                looked at. Defaults to None: all.

        Raises:
            InputError: If the sentences do not fit the score and the segments, or a number is not
                finite, or ``top_n`` is below 1.
        """
        queries = checked(queries, top_n, self.segments, self.score)
        count = len(next(iter(queries.values())))
        last = dict(moments=0, left=[], full_scans=0, coordinates=0)
        order = sorted(range(len(self._parts)), key=lambda place: -self._parts[place].rows)
        blocks = []
        for start in range(0, count, _SENTENCES):
            block = {space: rows[start : start + _SENTENCES] for space, rows in queries.items()}
            best = Best(min(_SENTENCES, count - start), top_n)
            for place in order:
                part = self._parts[place]
                inside = None if allowed is None else np.asarray(allowed[place], bool)
                sentences = _Sentences(part, block) if part.rows else None
                for rows, mask in part.chunks(inside, best.count):
                    step = _Step(self.score, place, part, sentences, best, rows, mask, last)
                    step.run(self.full_scan)
            blocks.append(best.hits())
        self.last = last
        return joined(blocks, top_n)


class _Part:
    """A segment's arrays as tensors on the device, and what is computed of them once."""

    def __init__(self, segment: Segment, spaces: tuple[str, ...], device: torch.device) -> None:
        self.segment, self.spaces, self.device = segment, spaces, device
        self.rows = len(segment.lengths)
        self.first = {space: self._tensor(segment.first[space]) for space in spaces}
        self.others = {space: self._tensor(segment.others[space]) for space in spaces}
        self.rest = {space: self._tensor(segment.rest[space]) for space in spaces}
        self.lengths = self._tensor(segment.lengths)
        self.trust = None if segment.trust is None else self._tensor(segment.trust)
        self.stages = max(len(segment.levels[space]) for space in spaces)
        self._norms: dict[str, float] = {}
        self._classes: tuple | None = None

    def _tensor(self, array: np.ndarray) -> Tensor:
        with warnings.catch_warnings():  # nobody writes to it
            warnings.filterwarnings('ignore', 'The given NumPy array is not writable')
            return torch.as_tensor(array, device=self.device)

    def norm(self, space: str) -> float:
        """No less than the largest norm of a vector."""
        if space not in self._norms:
            squares = 0.0
            for start in range(0, self.rows, _CELLS // 64):
                part = slice(start, start + _CELLS // 64)
                first = self.first[space][part].double().square().sum(1)
                squares = max(
                    squares, (first + self.rest[space][part, 0].double().square()).max().item()
                )
            self._norms[space] = squares**0.5 * (1 + 1e-9)
        return self._norms[space]

    def classes(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Moments of similar length: the class of each, (M,) int32, and (2, C) the least and the
        largest length of each class; with trust (4, C), each with the least and the largest trust.
        """
        if self._classes is None:
            sample = self.lengths[:: max(1, self.rows // 4096)].double()
            edges = torch.quantile(sample, torch.linspace(0, 1, _CLASSES + 1)[1:-1].to(sample))
            edges = edges.float().unique()
            own = torch.bucketize(self.lengths, edges, out_int32=True)
            present, own = own.unique(return_inverse=True)
            lengths, trust = _extremes(self.lengths, own, len(present)), self.trust
            if trust is not None:
                lengths = lengths[[0, 0, 1, 1]]
                trust = _extremes(trust, own, len(present))[[0, 1, 0, 1]]
            self._classes = own.int(), lengths, trust
        return self._classes

    def chunks(self, allowed: np.ndarray | None, sentences: int) -> Iterator[tuple]:
        """Rows that are looked at at once, a slice or (r,) places, with a mask of them or None."""
        size, count, mask, places = max(_CELLS // sentences, 1), self.rows, None, None
        if allowed is not None and not allowed.all():
            mask = torch.from_numpy(allowed).to(self.device)
            if 2 * np.count_nonzero(allowed) < self.rows:
                places, mask = mask.nonzero().flatten(), None
                count = len(places)
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            yield part if places is None else places[part], None if mask is None else mask[part]


class _Sentences:
    """A block of S sentences in a segment's coordinates."""

    def __init__(self, part: _Part, queries: Mapping[str, np.ndarray]) -> None:
        self.exact, self.near, self.rest, self.margin = {}, {}, {}, {}
        for space in part.spaces:
            exact = queries[space] @ part.segment.rotation[space].T.astype(np.float64)  # (S, J)
            squares = np.cumsum(exact[:, ::-1] ** 2, 1)[:, ::-1]
            squares = np.pad(squares, ((0, 0), (0, 1)))
            rests = np.sqrt(squares[:, list(part.segment.levels[space])]) * (1 + 2.0**-22)
            size = part.norm(space) * np.sqrt(squares[:, 0])  # (S,)
            self.exact[space] = exact
            self.near[space] = torch.from_numpy(exact.astype(np.float32)).to(part.device)
            self.rest[space] = torch.from_numpy(rests.astype(np.float32)).to(part.device)
            self.margin[space] = torch.from_numpy(_margin(exact.shape[1], size)).to(part.device)


def _margin(width: int, size: np.ndarray) -> np.ndarray:
    """What float32 may be off by, of products of vectors whose norms multiply to ``size``."""
    terms = width + 16
    share = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    if torch.get_float32_matmul_precision() != 'highest':
        share += 2.0**-7
    return share * size + terms * 2.0**-126  # and what is too small for float32


class _Step:
    """One chunk of a segment's rows compared with a block of sentences."""

    def __init__(self, score, place, part, sentences, best, rows, mask, last) -> None:
        self.place, self.part, self.sentences, self.best = place, part, sentences, best
        self.score, self.rows, self.mask, self.last = score, rows, mask, last
        if isinstance(rows, slice):
            self.places, self.start, self.count = None, rows.start, rows.stop - rows.start
        else:
            self.places, self.start, self.count = rows, 0, len(rows)

    def run(self, full: bool) -> None:
        """Add to the best what this chunk has; ``full``: by reading all coordinates."""
        self.last['moments'] += self.count * self.best.count
        bounds = self._first_bounds()
        cells = self.count * self.best.count
        if not full:
            self._sample(bounds)
            pairs = self._alone(bounds)
            full = len(pairs[0]) > max(_LEFT_ALONE * cells, PAIRS)
        if not full:
            pairs = self._together(pairs, self._picked(bounds, pairs), seeds=True)
            full = len(pairs[0]) > max(_LEFT_TOGETHER * cells, PAIRS)
        if full:
            self._all_coordinates(bounds)
            self._sample(bounds)
            pairs = self._alone(bounds)
            pairs = self._together(pairs, self._picked(bounds, pairs), seeds=True)
        else:
            del bounds
            for stage in range(1, self.part.stages + 1):
                if len(pairs[0]) > self.best.count * self.best.top_n:
                    pairs = self._together(pairs, self._bounds(pairs, stage))
        rows, sentences = self._on_host(pairs)
        self.best.add(self.place, rows, sentences, self._exact(rows, sentences))

    def _first_bounds(self) -> dict[str, Tensor]:
        """(r, S) per space, from the first coordinates, without the margin."""
        bounds = {}
        for space in self.part.spaces:
            first, rest = self._of(self.part.first[space]), self._of(self.part.rest[space][:, 0])
            near = self.sentences.near[space][:, : first.shape[1]]
            bounds[space] = torch.mm(first, near.T).addr_(rest, self.sentences.rest[space][:, 0])
            self.last['coordinates'] += first.numel()
        return bounds

    def _all_coordinates(self, bounds: dict[str, Tensor]) -> None:
        """Make products of bounds, by reading all coordinates; in place."""
        self.last['full_scans'] += 1
        for space in self.part.spaces:
            rest, others = self._of(self.part.rest[space][:, 0]), self.part.others[space]
            bound = bounds[space].addr_(rest, self.sentences.rest[space][:, 0], alpha=-1)
            width = others.shape[1]
            if not width:
                continue
            near = self.sentences.near[space][:, -width:].T
            size = max(_FULL // width, 1)
            buffer = near.new_empty(size, width)
            for start in range(0, self.count, size):
                end = min(start + size, self.count)
                if self.places is None:
                    read = others[self.start + start : self.start + end]
                else:
                    read = others.index_select(0, self.places[start:end])
                bound[start:end].addmm_(buffer[: end - start].copy_(read), near)
            self.last['coordinates'] += self.count * width

    def _sample(self, bounds: dict[str, Tensor]) -> None:
        """Raise the thresholds by the best of some moments, where none is known."""
        if self.count <= self.best.top_n or not np.isneginf(self.best.threshold).any():
            return
        wanted = max(_SAMPLE // self.best.count, _SAMPLE // 4, 4 * self.best.top_n)
        step = max(self.count // wanted, 1)
        local = torch.arange(0, self.count, step, device=self.part.device)  # (r',)
        shape = self.best.count, len(local)
        pairs = (
            local.expand(shape).flatten(),
            torch.arange(self.best.count, device=local.device)[:, None].expand(shape).flatten(),
        )
        if self.mask is not None:
            inside = self.mask[pairs[0]]
            pairs = pairs[0][inside], pairs[1][inside]
        self._raise(pairs, self._scored(pairs, self._picked(bounds, pairs)))

    def _raise(self, pairs: tuple[Tensor, Tensor], scores: Tensor) -> None:
        """Raise the thresholds by exact scores of the pairs with the best bounds."""
        seeds = max(_SEEDS // self.best.count, 2 * self.best.top_n)
        counts = torch.bincount(pairs[1], minlength=self.best.count).tolist()
        starts = np.cumsum([0, *counts])
        chosen = torch.cat(
            [
                part.topk(min(seeds, len(part)), sorted=False).indices + int(start)
                for start, part in zip(starts, scores.split(counts), strict=False)
            ]
        )
        rows, sentences = self._on_host((pairs[0][chosen], pairs[1][chosen]))
        self.best.expect(sentences, self._exact(rows, sentences))

    def _alone(self, bounds: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pairs that no space rules out by itself: rows of this chunk; sentences, rising."""
        margin = self.sentences.margin
        tops = {space: bound.amax(0).double() + margin[space] for space, bound in bounds.items()}
        left = None
        for space, bound in bounds.items():
            cut = self._cut(space, tops) - margin[space]  # (C, S)
            cut = torch.nextafter(cut.float(), cut.new_tensor(-torch.inf).float())
            if (cut == cut[:1]).all():
                cut = cut[0]
            else:
                cut = cut.index_select(0, self._of(self.part.classes()[0]))  # (r, S)
            reached = ~(bound <= cut)
            left = reached if left is None else left.logical_and_(reached)
        if self.mask is not None:
            left &= self.mask[:, None]
        if left.device.type == 'cpu':  # NumPy is several times faster
            found = torch.from_numpy(np.flatnonzero(left.numpy()))
        else:
            found = left.flatten().nonzero().flatten()
        self._count('alone', found)
        if self.best.count == 1:
            return found, torch.zeros_like(found)
        sentences = found % self.best.count
        order = sentences.to(torch.uint8).numpy(force=True).argsort(kind='stable')  # a radix sort
        order = torch.from_numpy(order).to(found.device)
        return (found // self.best.count)[order], sentences[order]

    def _cut(self, space: str, tops: dict[str, Tensor]) -> Tensor:
        """(C, S) products in a space up to which no score reaches the threshold.

        The other spaces are at their highest.
        """
        _, lengths, trust = self.part.classes()  # (4, C)
        lengths = lengths.double()[..., None]
        trust = None if trust is None else trust.double()[..., None]
        least = torch.from_numpy(self.best.least()).to(self.part.device)  # (S,)
        high = tops[space]
        reach = self.part.norm(space) * torch.from_numpy(
            np.linalg.norm(self.sentences.exact[space], axis=1)
        ).to(high)
        low = torch.minimum(-reach - self.sentences.margin[space], high)
        low, high = (end.expand(lengths.shape[1], -1) for end in (low, high))  # (C, S)
        steps = torch.linspace(0, 1, _GRID, dtype=torch.double, device=high.device)
        ends = None
        for _ in range(3):
            grid = low + (high - low) * steps[:, None, None]  # (G, C, S)
            products = {other: top.expand_as(grid)[:, None] for other, top in tops.items()}
            products[space] = grid[:, None]
            scores = self.score(products, lengths, trust)  # (G, 2 or 4, C, S)
            reached = (~(scores < least)).any(1)  # (G, C, S)
            if ends is None:  # no product reaches it, or every one does
                ends = torch.where(reached[0], -torch.inf, torch.nan)
                ends = torch.where(reached.any(0), ends, torch.inf)
            index = reached.byte().argmax(0)  # (C, S), the first that does
            index = torch.where(reached.any(0), index, _GRID - 1)[None]
            low, high = (grid.gather(0, at)[0] for at in ((index - 1).clamp(min=0), index))
        return torch.where(ends.isnan(), low, ends)

    def _picked(self, bounds: dict[str, Tensor], pairs) -> dict[str, Tensor]:
        """(P,) float64 per space: bounds of pairs, with their margins."""
        flat = pairs[0] * self.best.count + pairs[1]
        return {
            space: bound.flatten().index_select(0, flat).double() + self._margin(space, pairs[1])
            for space, bound in bounds.items()
        }

    def _bounds(self, pairs: tuple[Tensor, Tensor], stage: int) -> dict[str, Tensor]:
        """The same from the coordinates of a level; after the last one, of all."""
        bounds = {}
        for space in self.part.spaces:
            levels = self.part.segment.levels[space]
            near, norms = self.sentences.near[space], self.sentences.rest[space]
            level = levels[stage] if stage < len(levels) else near.shape[1]
            found = []
            for rows, sentences in zip(*(ids.split(PAIRS) for ids in pairs), strict=True):
                rows, near_ = self._global(rows), near.index_select(0, sentences)
                others = self.part.others[space][:, : level - levels[0]].index_select(0, rows)
                first = self.part.first[space].index_select(0, rows)
                bound = (first * near_[:, : levels[0]]).sum(1)
                bound += (others * near_[:, levels[0] : level]).sum(1)
                if stage < len(levels):
                    rest = self.part.rest[space][:, stage].index_select(0, rows)
                    bound += rest * norms[:, stage].index_select(0, sentences)
                found.append(bound.double() + self._margin(space, sentences))
            bounds[space] = torch.cat(found)
            self.last['coordinates'] += level * len(pairs[0])
        return bounds

    def _scored(self, pairs: tuple[Tensor, Tensor], products: dict[str, Tensor]) -> Tensor:
        """(P,) scores of products."""
        rows, trust = self._global(pairs[0]), self.part.trust
        trust = None if trust is None else trust.index_select(0, rows).double()
        return self.score(products, self.part.lengths.index_select(0, rows).double(), trust)

    def _together(self, pairs, bounds: dict[str, Tensor], seeds: bool = False) -> tuple:
        """Pairs whose bounds of all spaces together reach the threshold; ``seeds`` raise it."""
        scores = self._scored(pairs, bounds)
        if seeds:
            self._raise(pairs, scores)
        least = torch.from_numpy(self.best.least()).to(scores)
        left = ~(scores < least[pairs[1]])
        pairs = pairs[0][left], pairs[1][left]
        self._count('together', pairs[0])
        return pairs

    def _exact(self, rows: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        self.last['coordinates'] += len(rows) * sum(
            near.shape[1] for near in self.sentences.near.values()
        )
        return exact_scores(self.part.segment, self.score, self.sentences.exact, rows, sentences)

    def _margin(self, space: str, sentences: Tensor) -> Tensor:
        margin = self.sentences.margin[space]
        return margin if self.best.count == 1 else margin.index_select(0, sentences)

    def _of(self, column: Tensor) -> Tensor:
        """What a tensor of the segment has for this chunk."""
        return column[self.rows] if self.places is None else column.index_select(0, self.rows)

    def _global(self, rows: Tensor) -> Tensor:
        """Rows of the segment, of rows of this chunk."""
        return rows + self.start if self.places is None else self.places[rows]

    def _on_host(self, pairs: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
        return self._global(pairs[0]).cpu().numpy(), pairs[1].cpu().numpy()

    def _count(self, step: str, left: Tensor) -> None:
        self.last['left'].append((step, len(left)))


def _extremes(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """(2, C) the least and the largest value of each group."""
    zeros = values.new_zeros(2, count)
    for row, how in zip(zeros, ('amin', 'amax'), strict=True):
        row.scatter_reduce_(0, groups, values, how, include_self=False)
    return zeros
