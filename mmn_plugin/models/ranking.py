"""From scores to ranked moments: what heads, evaluation, inference and libraries share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import MomentGrid, VideoEmbedding, temporal_iou


def moment_scores(contrastive: Tensor, iou_score: Tensor, power: float) -> Tensor:
    """Fuse the two spaces' scores: ``(0.5 * contrastive + 0.5) ** power * iou_score`` (MMN, test).

    Args:
        contrastive (Tensor): (S, P) cosines in the contrastive space.
        iou_score (Tensor): (S, P) in [0, 1], from the IoU space.
        power (float): Weight of the contrastive score.

    Returns:
        Tensor: (S, P) float32.
    """
    # A cosine may round to just below -1, of which no power exists.
    return (0.5 * contrastive.float() + 0.5).clamp(min=0) ** power * iou_score.float()


# Moments of a sentence that vote in `expected_iou`, the best ones; further ones are left out.
VOTERS = 512


def expected_iou(
    spans: Tensor, scores: Tensor, power: float, sentence_video: Tensor | None = None
) -> Tensor:
    """IoU that each moment has with the true one on average, if the scores told how likely each is.

    ``sum_j w_j * IoU(i, j)`` with weights ``w`` that sum to 1 and go as ``score ** power``, of the
    `VOTERS` best moments: decoding by minimum Bayes risk. A model that is unsure of the boundaries
    has many neighboring moments of like scores, and the one amid them is the best answer, where the
    highest score is any of them.

    Args:
        spans (Tensor): As of `nms`.
        scores (Tensor): (S, P), not below 0.
        power (float): The lower, the more moments vote.
        sentence_video (Tensor, optional): As of `nms`.

    Returns:
        Tensor: (S, P) in [0, 1]; 0 of moments that do not vote, or whose score is 0.
    """
    found = torch.zeros_like(scores)
    if not scores.numel():
        return found
    count = min(VOTERS, scores.shape[1])
    step = max(1, CHUNK // count**2)
    for begin in range(0, len(scores), step):
        part = slice(begin, begin + step)
        own = spans if sentence_video is None else spans[sentence_video[part]]
        own = own[part] if sentence_video is None and own.dim() == 3 else own
        own = own.expand(len(scores[part]), -1, -1)  # (s, P, 2)
        best, voters = scores[part].topk(count)  # (s, K)
        # relative to the best one, so that no power underflows
        weights = (best / best[:, :1].clamp(min=torch.finfo(best.dtype).tiny)) ** power
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        own = own.gather(1, voters[..., None].expand(-1, -1, 2))  # (s, K, 2)
        iou = temporal_iou(own[:, :, None], own[:, None]).nan_to_num()  # (s, K, K)
        found[part] = found[part].scatter(1, voters, (iou @ weights[..., None])[..., 0])
    return found * (scores != 0)


def with_first(scores: Tensor, first: Tensor) -> Tensor:
    """Scores (S, P) in which moments ``first`` (S,) have the best score, and others have less.

    That score says how well the sentence fits its video's best moment, which thresholds are for.
    """
    best = scores.amax(1, keepdim=True)
    below = torch.nextafter(best, torch.zeros_like(best))
    return torch.minimum(scores, below).scatter(1, first[:, None], best)


# Scores worked on together. This bounds the scratch, some float32 per score: 20 MB. On a CPU small
# chunks gain nothing and suffer most when cores are shared.
CHUNK = 1 << 20


def nms(
    spans: Tensor,
    scores: Tensor,
    iou_threshold: float,
    top_n: int,
    sentence_video: Tensor | None = None,
) -> Tensor:
    """Rank the moments of every sentence and suppress those too close to a better one.

    ``top_n`` rounds, each of which takes every sentence's best remaining moment and suppresses what
    overlaps it with IoU > ``iou_threshold``. That is exactly greedy NMS over the sorted scores. As
    published, candidates are the moments with score != 0, and IoU, in seconds, is computed and
    compared in float32 (`temporal_iou`). Of equal scores the first index wins, on every device; the
    published code leaves their order open. A NaN is picked before any number; `rank` refuses it.

    Args:
        spans (Tensor): Start and end of the moments in seconds: (P, 2) where all sentences share
            them, (S, P, 2), or with ``sentence_video`` (V, P, 2), one set per video.
        scores (Tensor): (S, P).
        iou_threshold (float): Overlap above which the worse of two moments goes.
        top_n (int): Moments to keep per sentence.
        sentence_video (Tensor, optional): (S,) row of ``spans`` that each sentence uses.

    Returns:
        Tensor: (S, top_n) int64 indices of moments, best first, -1 where fewer remain, on the
        scores' device.
    """
    picks = scores.new_full((len(scores), top_n), -1, dtype=torch.int64)
    spans = spans.to(scores.device, torch.float32)
    edges = [edge.contiguous() for edge in spans.unbind(-1)]
    step = max(1, CHUNK // max(1, scores.shape[1]))
    for first in range(0, len(scores) if scores.shape[1] else 0, step):
        rows = slice(first, first + step)
        own = rows if sentence_video is None else sentence_video[rows]
        starts, ends = edges if spans.dim() == 2 else (edge[own] for edge in edges)
        _pick(starts, ends, scores[rows], iou_threshold, picks[rows])
    return picks


def _pick(
    starts: Tensor, ends: Tensor, scores: Tensor, iou_threshold: float, picks: Tensor
) -> None:
    """Fill ``picks`` (S, n) of some sentences; starts and ends are (P,) or (S, P)."""
    alive = scores.masked_fill(scores == 0, -torch.inf)  # (S, P); a copy, the rounds write to it
    starts, ends = starts.expand_as(alive), ends.expand_as(alive)
    for rank in range(picks.shape[1]):
        best, index = alive.max(dim=1, keepdim=True)  # (S, 1); the first of equal ones
        picks[:, rank] = index.masked_fill(best == -torch.inf, -1)[:, 0]
        if rank + 1 == picks.shape[1]:
            break
        start, end = starts.gather(1, index), ends.gather(1, index)
        # `temporal_iou` without copies
        overlap, hull = torch.minimum(ends, end), torch.maximum(ends, end)  # (S, P)
        overlap.sub_(torch.maximum(starts, start)).clamp_(min=0)
        overlap.div_(hull.sub_(torch.minimum(starts, start)))
        alive.masked_fill_(overlap > iou_threshold, -torch.inf)
        # Also where the pick's IoU with itself does not say so: a threshold of 1, an empty span
        alive.scatter_(1, index, -torch.inf)


def rank(
    spans: Tensor,
    scores: Tensor,
    iou_threshold: float,
    top_n: int,
    sentence_video: Tensor | None = None,
    beside: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Moments and scores that `nms` leaves of every sentence, on the host.

    All that leaves the device does so in one copy, which is the only thing the host waits for.

    Args:
        spans (Tensor): As of `nms`.
        scores (Tensor): (S, P).
        iou_threshold (float): As of `nms`.
        top_n (int): Moments to keep per sentence.
        sentence_video (Tensor, optional): As of `nms`.
        beside (Sequence[Tensor]): Further values (S, ...) to copy along. Defaults to none.

    Returns:
        list[Tensor]: (S, top_n, 2) seconds and (S, top_n) scores, best first and NaN where fewer
        remain, then those beside; on the CPU.

    Raises:
        ValueError: If a score is NaN.
    """
    picks = nms(spans, scores, iou_threshold, top_n, sentence_video)
    values = [*take_moments(spans, scores, picks, sentence_video), *beside]
    rows = [value[:, None].flatten(1) for value in values]
    parts = torch.cat(rows, 1).cpu().split([row.shape[1] for row in rows], 1)
    moments, best, *beside = (
        part.to(value.dtype).reshape(value.shape) for part, value in zip(parts, values, strict=True)
    )
    if (best.isnan() & ~moments[..., 0].isnan()).any():  # a moment was picked for its NaN
        raise InputError('NaN among the scores to rank: the model diverged, or its input holds NaN')
    return [moments, best, *beside]


def take_moments(
    spans: Tensor, scores: Tensor, picks: Tensor, sentence_video: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Spans and scores of the moments that `nms` picked.

    Args:
        spans (Tensor): As given to `nms`.
        scores (Tensor): (S, P).
        picks (Tensor): (S, n) indices, -1 for none.
        sentence_video (Tensor, optional): As given to `nms`.

    Returns:
        tuple[Tensor, Tensor]: (S, n, 2) seconds and (S, n) scores, NaN where the index is -1.
    """
    spans = spans.to(scores.device)
    none, index = picks < 0, picks.clamp(min=0)
    if spans.dim() == 2:
        moments = spans[index]
    else:
        row = torch.arange(len(scores), device=scores.device)
        if sentence_video is not None:
            row = sentence_video.to(scores.device)
        moments = spans[row[:, None], index]
    return (
        moments.masked_fill(none[..., None], torch.nan),
        scores.gather(1, index).masked_fill(none, torch.nan),
    )


def score_curve(spans: Tensor, scores: Tensor, duration: float, steps: int) -> Tensor:
    """How well the best moment around each time fits.

    At a time the curve has the largest score of all moments that contain it. So it peaks over the
    moment of rank 1 with that moment's score, and never hides a rival elsewhere.

    Args:
        spans (Tensor): (U, 2) start and end of the moments in seconds.
        scores (Tensor): (s, U) not below 0, before NMS.
        duration (float): Seconds of the video.
        steps (int): Values of the curve (K).

    Returns:
        Tensor: (s, K) float32 on the CPU, one value per equal part of the video; 0 where there is
        no moment.
    """
    spans, scores = spans.detach().float().cpu(), scores.detach().float().cpu()
    first = (spans[:, 0] / duration * steps).round().long().clamp(0, steps - 1)  # (U,)
    last = (spans[:, 1] / duration * steps).round().long().sub(1).clamp(0, steps - 1)
    place = (first * steps + torch.maximum(first, last)).expand_as(scores)  # (s, U)
    table = torch.zeros(len(scores), steps * steps)  # the best score from one step to another
    table = table.scatter_reduce_(1, place, scores, 'amax').unflatten(1, (steps, steps))
    best = table.cummax(1).values.flip(-1).cummax(-1).values.flip(-1)
    return best.diagonal(dim1=-2, dim2=-1)


def relative_threshold(scores: Tensor, share: float) -> Tensor:
    """Threshold that lies a share of the way from each row's lowest to its highest score.

    Args:
        scores (Tensor): (S, N).
        share (float): 0 is the lowest, 1 the highest.

    Returns:
        Tensor: (S, 1), never above the row's highest score.
    """
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return torch.minimum(low + share * (high - low), high)  # rounding could pass it


def score_runs(
    curves: Tensor, thresholds: Sequence[float], grid: MomentGrid, halving: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Find the runs of each curve above several relative thresholds, and how they stand out.

    A run is a longest stretch of neighboring clips whose scores are all at least the threshold.
    Each is a moment of the grid; runs of several thresholds lie inside each other. The first
    threshold is the preferred one: contrast alone would put the narrowest run of a peak first.

    Args:
        curves (Tensor): (S, N) scores of the clips for each sentence.
        thresholds (Sequence[float]): Relative ones, see `relative_threshold`; the preferred one
            first.
        grid (MomentGrid): All moments of N clips; P of them.
        halving (float): Distance from the first threshold at which another one's runs have half
            the weight. Defaults to 0.3.

    Returns:
        tuple[Tensor, Tensor]: (S, P) contrast, the mean score inside minus that outside (of the
        whole video: 0), and (S, P) weight in [0, 1]: 1 for the first threshold's runs, that of
        the nearest threshold for other ones, 0 where the moment is no run. Every curve has a run
        of each threshold.
    """
    starts, ends = grid.clips_on(curves.device)
    weight = curves.new_zeros(len(curves), len(starts))  # (S, P)
    for share in thresholds:
        above = curves >= relative_threshold(curves, share)  # (S, N)
        begins = above & ~F.pad(above[:, :-1], (1, 0))
        stops = above & ~F.pad(above[:, 1:], (0, 1))
        gaps = (~above).cumsum(1)  # clips below the threshold so far
        is_run = begins[:, starts] & stops[:, ends] & (gaps[:, starts] == gaps[:, ends])
        own = 0.5 ** (abs(share - thresholds[0]) / halving)
        weight = torch.where(is_run, weight.clamp(min=own), weight)
    total = F.pad(curves.cumsum(1), (1, 0))  # (S, N + 1)
    inside = total[:, ends + 1] - total[:, starts]  # (S, P)
    length = ends + 1 - starts  # (P,)
    rest = grid.num_clips - length
    contrast = inside / length - (total[:, -1:] - inside) / rest.clamp(min=1)
    return torch.where(rest > 0, contrast, 0.0), weight


def score_stretches(
    curves: Tensor, grid: MomentGrid, around_weight: float, length_weight: float
) -> Tensor:
    """How every stretch of neighboring clips stands out of what surrounds it.

    Args:
        curves (Tensor): (S, N) scores of the clips for each sentence.
        grid (MomentGrid): All moments of N clips; P of them.
        around_weight (float): Share of the surroundings that is taken away.
        length_weight (float): Factor on the logarithm of the length as a share of the video.

    Returns:
        Tensor: (S, P), the mean inside minus ``around_weight`` times that around, of the stretch's
        length on either side, plus ``length_weight * log(length)``. Around the whole video is the
        video itself.
    """
    starts, ends = grid.clips_on(curves.device)
    length = ends + 1 - starts  # (P,)
    first, last = (starts - length).clamp(min=0), (ends + 1 + length).clamp(max=grid.num_clips)
    rest = last - first - length
    total = F.pad(curves.cumsum(1), (1, 0))  # (S, N + 1)
    inside = total[:, ends + 1] - total[:, starts]  # (S, P)
    around = (total[:, last] - total[:, first] - inside) / rest.clamp(min=1)
    inside = inside / length
    around = torch.where(rest > 0, around, inside)
    return inside - around_weight * around + length_weight * (length / grid.num_clips).log()


@dataclass(frozen=True)
class FusedScore:
    """A head's `fuse` as the score of a library, for moments of any number of videos.

    Attributes:
        fuse (Callable): The head's.
        spaces (tuple[str, ...]): Spaces of the products.
    """

    fuse: Callable
    spaces: tuple[str, ...]

    def __call__(
        self, products: dict[str, Tensor], lengths: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Scores (...) of products (...) per space; see ``BaseHead.library_score``."""
        spans = torch.stack([torch.zeros_like(lengths), lengths], -1)
        # moments of many videos in one: nothing of it but length and number of windows counts
        video = VideoEmbedding({}, spans, 'library', duration=1.0, num_windows=2)
        return trusted(self.fuse(products, video), trust)


def trusted(scores: Tensor, trust: Tensor | None) -> Tensor:
    """Scores times the trust in their moments, float64."""
    return scores.double() if trust is None else scores.double() * trust
