"""Is a ranking what greedy NMS gives, up to the order of near-equal scores?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmn_plugin.structures.temporal_iou import temporal_iou


@dataclass
class GreedyCheck:
    """Outcome of `is_greedy_ranking`; true or false like its ``valid``.

    Attributes:
        valid (bool): Whether the ranking is a greedy one.
        ties (int): How often it took another moment than the first of the best-scored ones left,
            which is what `nms` takes.
        reason (str): What is wrong, empty where valid.
    """

    valid: bool
    ties: int = 0
    reason: str = ''

    def __bool__(self) -> bool:
        return self.valid


def is_greedy_ranking(
    spans: Tensor,
    scores: Tensor,
    picked_moments: Tensor,
    iou_threshold: float,
    rel_tol: float = 1e-6,
) -> GreedyCheck:
    """Check a ranking of one sentence's moments against greedy NMS.

    Two implementations whose scores agree to rounding may rank near-equal ones either way, and the
    order of equal ones is open anyway. So each picked moment must be a candidate (score != 0) that
    no earlier pick suppresses, scored at most ``rel_tol`` below the best such candidate; and the
    ranking may end early (NaN) only where no candidate is left.

    Args:
        spans (Tensor): (P, 2) seconds.
        scores (Tensor): (P,).
        picked_moments (Tensor): (n, 2) seconds, best first, NaN where fewer; equal to rows of
            ``spans`` in float32.
        iou_threshold (float): As for `nms`.
        rel_tol (float): Relative difference up to which scores count as equal. Defaults to 1e-6.

    Returns:
        GreedyCheck: Verdict, number of ties made use of, and the reason for a refusal.
    """
    spans, picked = spans.to(torch.float32), picked_moments.to(torch.float32)
    alive = scores.masked_fill(scores == 0, -torch.inf).to(torch.float64)
    ties = 0
    for rank, moment in enumerate(picked):
        best = alive.max().item()
        if moment.isnan().any():
            if best > -torch.inf:
                return GreedyCheck(False, ties, f'rank {rank} is empty but a candidate is left')
            if not picked[rank:].isnan().all():
                return GreedyCheck(False, ties, f'rank {rank} is empty but a later one is not')
            return GreedyCheck(True, ties)
        index = (spans == moment).all(-1).nonzero()[:, 0]
        if len(index) == 0:
            return GreedyCheck(False, ties, f'rank {rank}: {moment.tolist()} is no moment')
        index = index[alive[index].argmax()]
        score = alive[index].item()
        if score == -torch.inf:
            return GreedyCheck(
                False,
                ties,
                f'rank {rank}: {moment.tolist()} has score 0 or is suppressed by an earlier one',
            )
        if best - score > rel_tol * abs(best):
            return GreedyCheck(
                False,
                ties,
                f'rank {rank}: {moment.tolist()} has score '
                f'{score:.9g}, but a candidate of {best:.9g} is left',
            )
        ties += int(index != alive.argmax())
        alive[temporal_iou(spans, moment) > iou_threshold] = -torch.inf
        alive[index] = -torch.inf
    return GreedyCheck(True, ties)
