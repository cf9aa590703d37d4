"""The moments of many videos ranked for a sentence, by exact products over all of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import VideoEmbedding, nms_within

SENTENCES, MOMENTS = 64, 8192  # compared at once: small enough for the processor's cache
CANDIDATES = 8  # moments looked at for one that is kept, at first


@dataclass
class LibraryRanking:
    """The best moments of a library for S sentences, and its best videos.

    Attributes:
        video_ids (Sequence[str]): V videos of the library.
        pool (int): Moments in the library, before any suppression.
        videos (Tensor): (S, n) int64 place of each hit's video, best first, -1 where fewer.
        moments (Tensor): (S, n, 2) float32 seconds, NaN likewise.
        scores (Tensor): (S, n) float64, NaN likewise.
        best_videos (Tensor): (S, k) int64 places of the videos by their best moments, -1 where
            fewer.
        video_scores (Tensor): (S, k) float64 scores of those moments, NaN likewise.
        own_moments (Tensor | None): (S, n, 2) float32 seconds, the best moments of the sentence's
            own video, as of `rank_own_videos`. Defaults to None: not ranked.
        own_scores (Tensor | None): (S, n) float64. Defaults to None.
    """

    video_ids: Sequence[str]
    pool: int
    videos: Tensor
    moments: Tensor
    scores: Tensor
    best_videos: Tensor
    video_scores: Tensor
    own_moments: Tensor | None = None
    own_scores: Tensor | None = None

    @classmethod
    def from_hits(
        cls,
        moments: Sequence[Sequence],
        videos: Sequence[Sequence],
        video_ids: Sequence[str],
        pool: int,
        top_n: int = 100,
    ) -> 'LibraryRanking':
        """What ``MomentLibrary.search`` gave, by moment and by video.

        Args:
            moments (Sequence[Sequence[Hit]]): Of each sentence, best first.
            videos (Sequence[Sequence[Hit]]): Likewise, the best moment of each video.
            video_ids (Sequence[str]): V videos of the library.
            pool (int): Moments in it.
            top_n (int): Width (n and k) of the ranking; shorter lists are padded. Defaults to 100.
        """
        place = {video_id: number for number, video_id in enumerate(video_ids)}
        found = []
        for listed in (moments, videos):
            rows = torch.full((len(listed), top_n, 4), torch.nan, dtype=torch.float64)
            for row, hits in zip(rows, listed, strict=True):
                values = [(place[h.video_id], h.start, h.end, h.score) for h in hits[:top_n]]
                row[: len(values)] = torch.tensor(values, dtype=torch.float64).view(-1, 4)
            number = rows[..., 0].nan_to_num(nan=-1).long()
            found.append((number, rows[..., 1:3].float(), rows[..., 3]))
        (hits, spans, scores), (best, _, best_scores) = found
        return cls(video_ids, pool, hits, spans, scores, best, best_scores)


@dataclass
class MomentPool:
    """The moments of V videos laid end to end.

    Attributes:
        video_ids (list[str]): V videos.
        counts (Tensor): (V,) moments of each.
        embeddings (dict[str, Tensor]): (M, J) float32 per space.
        spans (Tensor): (M, 2) float32 seconds.
        lengths (Tensor): (M,) float32, of moments as shares of what was looked at at once.
        trust (Tensor | None): (M,) float32 factor on the scores; None where it is 1 for all.
    """

    video_ids: list[str]
    counts: Tensor
    embeddings: dict[str, Tensor]
    spans: Tensor
    lengths: Tensor
    trust: Tensor | None
    video: Tensor = field(init=False)

    def __post_init__(self):
        places = torch.arange(len(self.counts))
        self.video = places.repeat_interleave(self.counts)  # (M,)

    @classmethod
    def of(cls, videos: Iterable[VideoEmbedding], spaces: Sequence[str]) -> 'MomentPool':
        """Moments of videos, from the head's ``library_units``.

        Args:
            videos (Iterable[VideoEmbedding]): V videos; an iterator need not hold all of them.
            spaces (Sequence[str]): Which spaces are kept.

        Raises:
            ValueError: If there is no video.
        """
        ids, parts = [], {name: [] for name in (*spaces, 'spans', 'lengths', 'trust')}
        for video in videos:
            ids.append(video.video_id)
            spans = video.spans.float().cpu()
            seconds = video.duration / video.length_in_windows
            parts['spans'].append(spans)
            parts['lengths'].append((spans[:, 1] - spans[:, 0]) / seconds)
            trust = spans.new_ones(len(spans)) if video.trust is None else video.trust.cpu()
            parts['trust'].append(trust)
            for space in spaces:
                parts[space].append(video.embeddings[space].float().cpu())
        if not ids:
            raise InputError('there is no video in the library')
        counts = torch.tensor([len(spans) for spans in parts['spans']])
        laid = {name: torch.cat(values) for name, values in parts.items()}
        spans, lengths, trust = (laid.pop(name) for name in ('spans', 'lengths', 'trust'))
        return cls(ids, counts, laid, spans, lengths, None if (trust == 1).all() else trust)


@torch.no_grad()
def rank_library(
    pool: MomentPool,
    queries: Mapping[str, Tensor],
    score: Callable,
    nms_threshold: float,
    top_n: int = 100,
    top_videos: int = 100,
) -> LibraryRanking:
    """Rank all moments of a library for each sentence, after NMS within each video.

    Every moment is compared with every sentence: this is what a search with an index has to give as
    well.

    Args:
        pool (MomentPool): The library.
        queries (Mapping[str, Tensor]): (S, J) unit vectors per space.
        score (Callable): From ``head.library_score``.
        nms_threshold (float): Moments that overlap a better one of their video by more are left
            out.
        top_n (int): Hits of a sentence (n). Defaults to 100.
        top_videos (int): Videos of a sentence (k). Defaults to 100.

    Raises:
        ValueError: If a score is NaN.
    """
    total = len(pool.spans)
    rows = len(next(iter(queries.values())))
    found, wanted = [], CANDIDATES * top_n
    for first in range(0, rows, SENTENCES):
        part = {space: queries[space][first : first + SENTENCES] for space in score.spaces}
        best, wanted = _best(pool, part, score, nms_threshold, top_n, top_videos, wanted)
        found.append(best)
    picked, scores, *videos = (torch.cat(parts) for parts in zip(*found, strict=True))
    none = picked < 0
    return LibraryRanking(
        pool.video_ids,
        total,
        pool.video[picked].masked_fill(none, -1),
        pool.spans[picked].masked_fill(none[..., None], torch.nan),
        scores,
        *videos,
    )


def rank_own_videos(
    pool: MomentPool,
    queries: Mapping[str, Tensor],
    score: Callable,
    nms_threshold: float,
    own: Sequence[int],
    top_n: int = 100,
) -> tuple[Tensor, Tensor]:
    """Moments (S, n, 2) and scores (S, n) of each sentence's own video, by the library's score.

    Args: as of `rank_library`, and ``own``, S places of the sentences' videos. NaN where fewer.
    """
    from mmn_plugin.models.ranking import rank  # `mmn eval` needs no models

    ends = pool.counts.cumsum(0).tolist()
    moments, scores = [], []
    for sentence, video in enumerate(own):
        rows = slice(ends[video] - int(pool.counts[video]), ends[video])
        products = {
            space: queries[space][sentence, None] @ pool.embeddings[space][rows].T
            for space in score.spaces
        }
        trust = None if pool.trust is None else pool.trust[rows]
        found = score(products, pool.lengths[rows], trust)  # (1, m)
        # a score of 0 is a moment as well
        ranked, best = rank(pool.spans[rows], found.clamp(min=1e-300), nms_threshold, top_n)
        moments.append(ranked)
        scores.append(best)
    return torch.cat(moments), torch.cat(scores)


def _best(
    pool, queries, score, nms_threshold, top_n: int, top_videos: int, wanted: int
) -> tuple[tuple[Tensor, ...], int]:
    """Of some sentences the rows (s, n) of the pool that are left, their scores, and the videos.

    Greedy NMS of the best K moments is the beginning of greedy NMS of all; K, ``wanted`` at first,
    grows until n are kept, and is returned for the next sentences.
    """
    total = len(pool.spans)
    while True:
        wanted = min(total, wanted)
        values, rows, best = _compare(pool, queries, score, wanted)
        kept = nms_within(pool.video[rows], pool.spans[rows], nms_threshold)
        if wanted == total or (kept.sum(1) >= top_n).all():
            break
        wanted *= 2
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :top_n]  # kept ones first
    kept = kept.gather(1, order)
    rows = rows.gather(1, order).masked_fill(~kept, -1)
    values = values.gather(1, order).masked_fill(~kept, torch.nan)
    best, videos = best.sort(dim=1, descending=True, stable=True)
    found = (
        _padded(rows, top_n, -1),
        _padded(values, top_n, torch.nan),
        _padded(videos[:, :top_videos], top_videos, -1),
        _padded(best[:, :top_videos], top_videos, torch.nan),
    )
    return found, wanted


def _compare(pool, queries, score, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K best scores (s, K) of some sentences, their rows, and each video's best (s, V)."""
    number, held = len(next(iter(queries.values()))), []
    best = torch.full((number, len(pool.counts)), -torch.inf, dtype=torch.float64)
    for first in range(0, len(pool.spans), MOMENTS):
        part = slice(first, first + MOMENTS)
        products = {space: rows @ pool.embeddings[space][part].T for space, rows in queries.items()}
        trust = None if pool.trust is None else pool.trust[part]
        scores = score(products, pool.lengths[part], trust)  # (s, m)
        if scores.isnan().any():
            raise InputError('NaN among the scores to rank: the model diverged, or its input has')
        best.scatter_reduce_(1, pool.video[part].expand_as(scores), scores, 'amax')
        values, rows = scores.topk(min(wanted, scores.shape[1]), dim=1, sorted=False)
        held.append((values, rows + first))
        if sum(values.shape[1] for values, _ in held) > 4 * wanted:
            held = [_merged(held, wanted, sort=False)]
    return *_merged(held, wanted), best


def _merged(held: list[tuple[Tensor, Tensor]], wanted: int, sort: bool = True) -> tuple:
    values, rows = (torch.cat(parts, 1) for parts in zip(*held, strict=True))
    values, places = values.topk(min(wanted, values.shape[1]), dim=1, sorted=sort)
    return values, rows.gather(1, places)


def _padded(values: Tensor, width: int, fill: float) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=fill)
