"""A weighted sum of a moment's products below which no score reaches a threshold."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

# Parts of the range of each product but the last, by the number of spaces: 576 cells at most.
_PARTS = {1: 1, 2: 64, 3: 24, 4: 8, 5: 4}
_GRID, _ROUNDS = 16, 3  # the last product is found to 1 / 4,096 of its range


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
        score,
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
