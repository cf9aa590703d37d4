"""The first n moments of all segments, proven: search by bounds over rotated vectors."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .bounds import About, Part, Sentences
from .hits import PAIRS, Best, Hits, Score, checked, exact_scores
from .segment import Segment

_SENTENCES = 64  # that are searched for together, and share products
# Coordinates that are made float32 at once, for a full scan, and of these in one thread.
_FULL, _PIECE = 1 << 19, (1 << 15) - 1
_LEFT = 0.2  # of all pairs: more left, and reading all coordinates in their order is faster
_SEEDS, _BLOCK = 64, 64  # best moments that set the threshold; moments of which one may be it
# Moments that the weights are of, and how many of them lie together, as memory is read in pages.
_SAMPLE, _RUN = 1 << 12, 32


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
    with the largest sums. What is left is compared by sums with the next level's bounds of one
    space, then of the next space, and so on; what remains is scored in float64. Where the first
    level leaves too many, all coordinates are read in the order they lie.

    Rounding. Sums are computed in float32, of unit roundoff u = 2^-24. A sum of n products in any
    order is off by at most ``gamma(n + 1)`` times the sum of their absolute values, with
    ``gamma(n) = n u / (1 - n u)``, where one factor of each was rounded to float32 (Higham,
    Accuracy and Stability, 3.1). The coordinates are J terms a space, of absolute values that add
    up to at most ``max|x| |q|``; products of rests, added and taken away again by level, are
    counted as 16 terms a level more. Stored norms are rounded up. So ``gamma(n) w max|x| |q|``,
    summed over the spaces with their weights w, is taken off the cutoff; and 2^-7 of it more where
    PyTorch was allowed less than float32 (`torch.set_float32_matmul_precision`).

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
            after each step (the first sums, spaces by level), ``full_scans`` and ``coordinates``
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
            Part(place, segment, score.spaces, torch.device(device))
            for place, segment in enumerate(segments)
            if segment.rows
        ]
        self._parts = sorted(parts, key=lambda part: -part.rows)
        self._about: About | None = None
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
            self._about = About(self._parts, self.score.spaces)
        blocks = [Best(0, top_n).hits()]
        for start in range(0, count, _SENTENCES):
            block = {space: rows[start : start + _SENTENCES] for space, rows in queries.items()}
            best = Best(min(_SENTENCES, count - start), top_n)
            cutoff = self._about.cutoff(self.score, block)
            for part in self._parts:
                inside = None if allowed is None else np.asarray(allowed[part.place], bool)
                sentences = Sentences(part, block)
                sentences.weigh(cutoff.weights.numpy(), cutoff.reach.numpy())
                for rows, mask in part.chunks(inside, best.count):
                    step = _Step(self.score, part, sentences, best, cutoff, rows, mask, last)
                    step.run(self.full_scan)
            blocks.append(best.hits())
        self.last = last
        return Hits(*map(np.concatenate, zip(*blocks, strict=True)))


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
        sums = self._sums()
        if not full:
            pairs = self._above(sums, first)
            full = len(pairs[0]) > max(_LEFT * sums.numel(), PAIRS)
        if full:
            self._all_coordinates(sums)
            pairs = self._above(sums, True)
        else:
            pairs = self._by_level(pairs, sums)
        rows, sentences = self._on_host(pairs)
        self.best.add(self.part.place, rows, sentences, self._exact(rows, sentences))

    def _aim(self) -> None:
        """Weights by the bounds of the best of some moments."""
        wanted = max(int(_SAMPLE / self.best.count**0.5), _RUN)
        runs = torch.arange(0, self.count, max(_RUN * self.count // wanted, _RUN))
        local = (runs[:, None] + torch.arange(_RUN)).flatten().to(self.part.device)
        rows = self._global(local[local < self.count])
        self.sentences.weigh(np.ones_like(self.cutoff.reach), self.cutoff.reach.numpy())
        bounds = {}  # (r, S)
        for space in self.part.spaces:
            bound = torch.mm(self.part.first[space][rows], self.sentences.first[space])
            bound.addr_(self.part.rest[space][:, 0][rows], self.sentences.rest[space][0])
            bounds[space] = bound.double()
        trust = None if self.part.trust is None else self.part.trust[rows, None].double()
        scores = self.score(bounds, self.part.lengths[rows, None].double(), trust)
        chosen = scores.topk(min(_SEEDS, len(rows)), 0, sorted=False).indices  # (K, S)
        best = [bounds[space].gather(0, chosen).mean(0) for space in self.part.spaces]
        self.cutoff.aim(torch.stack(best).cpu())
        self.sentences.weigh(self.cutoff.weights.numpy(), self.cutoff.reach.numpy())

    @property
    def _seeds(self) -> int:
        return max(_SEEDS // self.best.count, 2 * self.best.top_n)

    def _sums(self) -> Tensor:
        """(r, S) weighted sums of the bounds of the first level, without the margin."""
        sums = None
        for space in self.part.spaces:
            first, near = self._of(self.part.first[space]), self.sentences.first[space]
            sums = torch.mm(first, near) if sums is None else sums.addmm_(first, near)
            sums.addr_(self._of(self.part.rest[space][:, 0]), self.sentences.rest[space][0])
            self.last['coordinates'] += first.numel()
        return sums

    def _all_coordinates(self, sums: Tensor) -> None:
        """Make products of bounds, by reading all coordinates; in place."""
        self.last['full_scans'] += 1
        for space in self.part.spaces:
            rest = self._of(self.part.rest[space][:, 0])
            sums.addr_(rest, self.sentences.rest[space][0], alpha=-1)
            for others, near in zip(
                self.part.others[space], self.sentences.others[space], strict=True
            ):
                self._add_products(sums, others, near.T)
                self.last['coordinates'] += self.count * others.shape[1]

    def _add_products(self, sums: Tensor, others: Tensor, near: Tensor) -> None:
        """Add the products of coordinates with those of sentences, some rows at a time; in place.

        Pieces that PyTorch copies in one thread: its threads and those of the product would wait
        for each other's, which are busy waiting.
        """
        width = others.shape[1]
        size = max(_FULL // width, 1)
        threads = torch.get_num_threads() if others.device.type == 'cpu' else 1
        piece = size if threads == 1 else max(_PIECE // width, 1)
        buffer = near.new_empty(size, width)
        for start in range(0, self.count, size):
            end = min(start + size, self.count)
            if self.places is None:
                read = others[self.start + start : self.start + end]
            else:
                read = others.index_select(0, self.places[start:end])
            for source, target in zip(read.split(piece), buffer.split(piece), strict=False):
                target[: len(source)].copy_(source)
            sums[start:end].addmm_(buffer[: end - start], near)

    def _by_level(self, pairs: tuple[Tensor, Tensor], sums: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs whose sums of the bounds of further levels, space by space, exceed the cutoff."""
        flat = pairs[0] * self.best.count + pairs[1]
        values, least = sums.flatten().index_select(0, flat), self._least()
        for level in range(max(map(len, self.part.others.values()))):
            for space in self.sentences.order:
                if level >= len(self.part.others[space]):
                    continue
                if len(values) <= self.best.count * self.best.top_n:
                    return pairs
                for start in range(0, len(values), PAIRS):
                    part = slice(start, start + PAIRS)
                    rows, sentences = self._global(pairs[0][part]), pairs[1][part]
                    self._next_level(values[part], space, level, rows, sentences)
                left = self._exceeds(values, pairs, least)
                pairs, values = (pairs[0][left], pairs[1][left]), values[left]
                self._count(f'{space} {level + 1}', values)
        return pairs

    def _next_level(self, values: Tensor, space: str, level: int, rows, sentences) -> None:
        """Make a level's bounds, in sums (P,), those of the next one or products; in place."""
        others = self.part.others[space][level].index_select(0, rows)
        near, rests = self.sentences.others[space][level], self.sentences.rest[space]
        if self.best.count == 1:
            values += others.float().mv(near[0])
        else:
            values += (others * near.index_select(0, sentences)).sum(1)
        for place, sign in ((level, -1), (level + 1, 1)):
            if place < len(rests):
                rest = self.part.rest[space][:, place].index_select(0, rows)
                values.addcmul_(rest, rests[place].index_select(0, sentences), value=sign)
        self.last['coordinates'] += others.numel()

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
        rows, sentences = self._on_host((pairs[0].flatten(), pairs[1].flatten()))
        self.best.expect(sentences, self._exact(rows, sentences))

    def _least(self) -> Tensor:
        """(C, S) float32 sums that moments of a class have to exceed."""
        least = self.cutoff.cutoff - torch.from_numpy(self.sentences.margin)
        return torch.nextafter(least.float(), torch.tensor(-torch.inf)).to(self.part.device)

    def _exceeds(self, values: Tensor, pairs: tuple[Tensor, Tensor], least: Tensor) -> Tensor:
        """(P,) bool of sums of pairs."""
        if len(least) == 1:
            return ~(values <= least[0].index_select(0, pairs[1]))
        return ~(values <= least[self.part.classes[self._global(pairs[0])], pairs[1]])

    def _exceeding(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs whose sum exceeds the cutoff."""
        least = self._least()
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

    def _exact(self, rows: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        width = sum(exact.shape[1] for exact in self.sentences.exact.values())
        self.last['coordinates'] += len(rows) * width
        return exact_scores(self.part.segment, self.score, self.sentences.exact, rows, sentences)

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
