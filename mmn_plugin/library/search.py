"""The first n moments of all segments, proven: search by bounds over rotated vectors."""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .cutoff import Cutoff
from .hits import PAIRS, Best, Hits, Score, brute_force, checked, exact_scores, joined
from .segment import Segment

__all__ = ['ExactSearch', 'Hits', 'Score', 'brute_force']

# Sums held at once: 8 MB. Sentences that are searched for together share products.
_CELLS = 1 << 21
_SENTENCES = 64
_FULL = 1 << 19  # coordinates that are made float32 at once, for a full scan
# More moments than these shares left, and reading all coordinates in their order is faster.
_LEFT_ALONE, _LEFT_TOGETHER = 0.2, 0.05
_SEEDS, _BLOCK = 64, 64  # best moments that set the threshold; moments of which one may be it
# Moments that the weights are of, and how many of them lie together, as memory is read in pages.
_SAMPLE, _RUN = 1 << 12, 32
_CLASSES = 16


class ExactSearch:
    """Search segments for the moments of the best scores, without reading most coordinates.

    The answer is that of a full scan in float64 (`brute_force`): the same moments in the same
    order. Vectors are rotated so that their first coordinates hold most of their norm. With the
    first l coordinates of a moment x and of a sentence q (Cauchy-Schwarz)::

        x . q  <=  x_l . q_l + |rest of x| |rest of q|

    in each space, and the score rises in every product: a moment whose score of these bounds is
    below the n-th best known one is out. All moments are compared by one number, the sum of the
    bounds of the first level with a weight for each space, and a cutoff that no moment stays below
    whose score reaches that one (`Cutoff`), which is first known from exact scores of the moments
    with the largest sums. What is left is compared by the next level's bounds in all spaces, and so
    on; what remains is scored in float64. Where the first level leaves too many, all coordinates
    are read in the order they lie.

    Rounding. Sums and bounds are computed in float32, of unit roundoff u = 2^-24. A sum of l
    products in any order, with the sentence rounded to float32, is off by at most
    ``gamma(l + 1) |x_l| |q_l|``, where ``gamma(n) = n u / (1 - n u)`` (Higham, Accuracy and
    Stability, 3.1); the product with the rest, adding it, and taking it away again where all
    coordinates are read, by less than ``8 u |x| |q|``. Stored norms are rounded up. So
    ``gamma(J + 16) max|x| |q|`` is added to every bound, to a sum the weighted sum of these with
    the J of all spaces together; and 2^-7 of ``max|x| |q|`` where PyTorch was allowed less than
    float32 (`torch.set_float32_matmul_precision`).

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
            after each step (the sums, all spaces by level), ``full_scans`` and ``coordinates``
            read.

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
        parts = [
            _Part(place, segment, score.spaces, torch.device(device))
            for place, segment in enumerate(segments)
            if segment.rows
        ]
        self._parts = sorted(parts, key=lambda part: -part.rows)
        self._about: _About | None = None
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
        if self._about is None:
            self._about = _About(self._parts, self.score.spaces)
        blocks = []
        for start in range(0, count, _SENTENCES):
            block = {space: rows[start : start + _SENTENCES] for space, rows in queries.items()}
            best = Best(min(_SENTENCES, count - start), top_n)
            cutoff = self._about.cutoff(self.score, block)
            for part in self._parts:
                inside = None if allowed is None else np.asarray(allowed[part.place], bool)
                sentences = _Sentences(part, block, self._about.norms)
                for rows, mask in part.chunks(inside, best.count):
                    step = _Step(self.score, part, sentences, best, cutoff, rows, mask, last)
                    step.run(self.full_scan)
            blocks.append(best.hits())
        self.last = last
        return joined(blocks, top_n)


class _Part:
    """A segment's arrays as tensors on the device."""

    def __init__(
        self, place: int, segment: Segment, spaces: tuple[str, ...], device: torch.device
    ) -> None:
        self.place, self.segment, self.spaces, self.device = place, segment, spaces, device
        self.rows = segment.rows
        self.first = {space: self._tensor(segment.first[space]) for space in spaces}
        self.others = {space: self._tensor(segment.others[space]) for space in spaces}
        self.rest = {space: self._tensor(segment.rest[space]) for space in spaces}
        self.lengths = self._tensor(segment.lengths)
        self.trust = None if segment.trust is None else self._tensor(segment.trust)
        self.stages = max(len(segment.levels[space]) for space in spaces)
        self.classes: Tensor | None = None

    def _tensor(self, array: np.ndarray) -> Tensor:
        with warnings.catch_warnings():  # nobody writes to it
            warnings.filterwarnings('ignore', 'The given NumPy array is not writable')
            return torch.as_tensor(array, device=self.device)

    def norm(self, space: str) -> float:
        """No less than the largest norm of a vector."""
        squares, size = 0.0, _CELLS // 64
        for start in range(0, self.rows, size):
            part = slice(start, start + size)
            first = self.first[space][part].double().square().sum(1)
            rest = self.rest[space][part, 0].double().square()
            squares = max(squares, (first + rest).max().item())
        return squares**0.5 * (1 + 1e-9)

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


class _About:
    """What is known of the moments of all segments together: norms, and lengths by class."""

    def __init__(self, parts: Sequence[_Part], spaces: tuple[str, ...]) -> None:
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


class _Sentences:
    """A block of S sentences in a segment's coordinates."""

    def __init__(
        self, part: _Part, queries: Mapping[str, np.ndarray], norms: Mapping[str, float]
    ) -> None:
        self.exact, self.near, self.rests, self.rest, self.margin = {}, {}, {}, {}, {}
        self.sizes = []
        for space in part.spaces:
            exact = queries[space] @ part.segment.rotation[space].T.astype(np.float64)  # (S, J)
            squares = np.cumsum(exact[:, ::-1] ** 2, 1)[:, ::-1]
            squares = np.pad(squares, ((0, 0), (0, 1)))
            rests = np.sqrt(squares[:, list(part.segment.levels[space])]) * (1 + 2.0**-22)
            size = norms[space] * np.sqrt(squares[:, 0])  # (S,)
            self.exact[space], self.rests[space] = exact, rests
            self.near[space] = torch.from_numpy(exact.astype(np.float32)).to(part.device)
            self.rest[space] = torch.from_numpy(rests.astype(np.float32)).to(part.device)
            self.margin[space] = torch.from_numpy(_margin(exact.shape[1], size)).to(part.device)
            self.sizes.append(size)
        self.width = sum(exact.shape[1] for exact in self.exact.values())

    def weighted(self, weights: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], np.ndarray]:
        """Sentences (J, S) and norms of their rests (S,) per space times weights (D, S), float32,
        and the margin (S,) of sums of products with them.
        """
        near, rests = {}, {}
        for space, weight in zip(self.exact, weights.numpy(), strict=True):
            exact = self.exact[space].T * weight
            device = self.near[space].device
            near[space] = torch.from_numpy(exact.astype(np.float32)).to(device)
            rest = self.rests[space][:, 0] * weight
            rests[space] = torch.from_numpy(rest.astype(np.float32)).to(device)
        sizes = np.stack(self.sizes) * weights.numpy()
        return near, rests, _margin(self.width, sizes.sum(0))


def _margin(width: int, size: np.ndarray) -> np.ndarray:
    """What float32 may be off by, of products of vectors whose norms multiply to ``size``."""
    terms = width + 16
    share = terms * 2.0**-24 / (1 - terms * 2.0**-24)
    if torch.get_float32_matmul_precision() != 'highest':
        share += 2.0**-7
    return share * size + terms * 2.0**-126  # and what is too small for float32


class _Step:
    """One chunk of a segment's rows compared with a block of sentences."""

    def __init__(self, score, part, sentences, best, cutoff, rows, mask, last) -> None:
        self.part, self.sentences, self.best, self.cutoff = part, sentences, best, cutoff
        self.score, self.rows, self.mask, self.last = score, rows, mask, last
        if isinstance(rows, slice):
            self.places, self.start, self.count = None, rows.start, rows.stop - rows.start
        else:
            self.places, self.start, self.count = rows, 0, len(rows)

    def run(self, full: bool) -> None:
        """Add to the best what this chunk has; ``full``: by reading all coordinates."""
        self.last['moments'] += self.count * self.best.count
        first = np.isneginf(self.best.threshold).any()
        if first:
            self._aim()
        sums, share = self._sums(), _LEFT_ALONE if self.best.count == 1 else _LEFT_TOGETHER
        pairs = None if full else self._above(sums, first)
        if pairs is None or len(pairs[0]) > max(share * sums.numel(), PAIRS):
            full = True
            self._all_coordinates(sums)
            pairs = self._above(sums, True)
        del sums
        for stage in range(self.part.stages if full else 1, self.part.stages + 1):
            if len(pairs[0]) > self.best.count * self.best.top_n:
                pairs = self._together(pairs, self._bounds(pairs, stage))
        rows, sentences = self._on_host(pairs)
        self.best.add(self.part.place, rows, sentences, self._exact(rows, sentences))

    def _aim(self) -> None:
        """Weights by the bounds of the best of some moments."""
        wanted = max(int(_SAMPLE / self.best.count**0.5), _RUN)
        runs = torch.arange(0, self.count, max(_RUN * self.count // wanted, _RUN))
        local = (runs[:, None] + torch.arange(_RUN)).flatten().to(self.part.device)
        rows = self._global(local[local < self.count])
        bounds = {}  # (r, S)
        for space in self.part.spaces:
            first = self.part.first[space].index_select(0, rows)
            near, rest = self.sentences.near[space], self.sentences.rest[space][:, 0]
            bound = torch.mm(first, near[:, : first.shape[1]].T)
            bounds[space] = bound.addr_(self.part.rest[space][:, 0][rows], rest).double()
        scores = self._scored(rows[:, None], bounds)
        chosen = scores.topk(min(_SEEDS, len(rows)), 0, sorted=False).indices  # (K, S)
        best = [bounds[space].gather(0, chosen).mean(0) for space in self.part.spaces]
        self.cutoff.aim(torch.stack(best).cpu())

    @property
    def _seeds(self) -> int:
        return max(_SEEDS // self.best.count, 2 * self.best.top_n)

    def _expect(self, local: Tensor, sentences: Tensor) -> None:
        """Raise thresholds by exact scores of pairs."""
        rows, sentences = self._on_host((local, sentences))
        self.best.expect(sentences, self._exact(rows, sentences))

    def _sums(self) -> Tensor:
        """(r, S) weighted sums of the bounds of the first level, without the margin."""
        self.near, self.rests, self.margin = self.sentences.weighted(self.cutoff.weights)
        sums = None
        for space in self.part.spaces:
            first, rest = self._of(self.part.first[space]), self._of(self.part.rest[space][:, 0])
            near = self.near[space][: first.shape[1]]
            sums = torch.mm(first, near) if sums is None else sums.addmm_(first, near)
            sums.addr_(rest, self.rests[space])
            self.last['coordinates'] += first.numel()
        return sums

    def _all_coordinates(self, sums: Tensor) -> None:
        """Make products of bounds, by reading all coordinates; in place."""
        self.last['full_scans'] += 1
        for space in self.part.spaces:
            rest, others = self._of(self.part.rest[space][:, 0]), self.part.others[space]
            sums.addr_(rest, self.rests[space], alpha=-1)
            width = others.shape[1]
            if not width:
                continue
            near = self.near[space][-width:]
            size = max(_FULL // width, 1)
            buffer = near.new_empty(size, width)
            for start in range(0, self.count, size):
                end = min(start + size, self.count)
                if self.places is None:
                    read = others[self.start + start : self.start + end]
                else:
                    read = others.index_select(0, self.places[start:end])
                sums[start:end].addmm_(buffer[: end - start].copy_(read), near)
            self.last['coordinates'] += self.count * width

    def _above(self, sums: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """Pairs whose sum exceeds the cutoff: rows of this chunk; sentences, rising.

        The best of them raise it at ``first``, or if they are many.
        """
        for raised in (first, True):
            if raised:
                self._raise(sums)
            self.cutoff.update(self.best.least())
            pairs = self._exceeding(sums)
            if raised or len(pairs[0]) <= 4 * self._seeds * self.best.count:
                break
        self._count('sums', pairs[0])
        return pairs

    def _raise(self, sums: Tensor) -> None:
        """Raise thresholds by exact scores of the pairs with the largest sums."""
        whole = self.count // _BLOCK * _BLOCK  # the largest lie in the blocks of the largest maxima
        blocks = sums[:whole].view(-1, _BLOCK, self.best.count)
        best = blocks.amax(1).T.topk(min(self._seeds, len(blocks)), sorted=False).indices  # (S, K)
        local = (best[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=best.device)).flatten(1)
        rest = torch.arange(whole, self.count, device=best.device).expand(self.best.count, -1)
        local = torch.cat((local, rest), 1)
        values = sums.T.gather(1, local)
        if self.mask is not None:
            values.masked_fill_(~self.mask[local], -torch.inf)
        chosen = values.topk(min(self._seeds, values.shape[1]), sorted=False).indices
        pairs = (
            local.gather(1, chosen),
            torch.arange(self.best.count, device=best.device)[:, None].expand_as(chosen),
        )
        if self.mask is not None:
            inside = self.mask[pairs[0]]
            pairs = pairs[0][inside], pairs[1][inside]
        self._expect(pairs[0].flatten(), pairs[1].flatten())

    def _exceeding(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs whose sum exceeds the cutoff."""
        least = self.cutoff.cutoff - torch.from_numpy(self.margin)  # (C, S)
        least = torch.nextafter(least.float(), torch.tensor(-torch.inf)).to(self.part.device)
        if len(least) > 1:
            least = least.index_select(0, self._of(self.part.classes))  # (r, S)
        left = (sums <= least).logical_not_()
        if self.mask is not None:
            left &= self.mask[:, None]
        if left.device.type == 'cpu':  # NumPy is several times faster
            found = torch.from_numpy(np.flatnonzero(left.numpy()))
        else:
            found = left.flatten().nonzero().flatten()
        if self.best.count == 1:
            return found, torch.zeros_like(found)
        sentences = found % self.best.count
        order = sentences.to(torch.uint8).numpy(force=True).argsort(kind='stable')  # a radix sort
        order = torch.from_numpy(order).to(found.device)
        return (found // self.best.count)[order], sentences[order]

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

    def _scored(self, rows: Tensor, products: dict[str, Tensor]) -> Tensor:
        """Scores of products, of rows of the segment."""
        trust = None if self.part.trust is None else self.part.trust[rows].double()
        return self.score(products, self.part.lengths[rows].double(), trust)

    def _together(self, pairs, bounds: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pairs whose bounds of all spaces together reach the threshold."""
        scores = self._scored(self._global(pairs[0]), bounds)
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
