"""Figures of searches over many videos: which video, and when in it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import normalized_text, padded_windows, temporal_iou
from mmn_plugin.structures.annotations import VideoAnnotation

from .library_ranking import LibraryRanking
from .recall import ranked_iou, recall

TOP_N = (1, 10, 100)
TOP_VIDEOS = (1, 5, 10, 100)
IOU_THRS = (0.5, 0.7)


@dataclass
class AskedSentence:
    """A sentence and all moments of the library that are right answers to it.

    Attributes:
        sentence (str): As annotated.
        videos (Tensor): (t,) int64 places in the library of the answers' videos; the annotated
            ones come first.
        moments (Tensor): (t, 2) float32 seconds.
        num_windows (int): Annotated answers: windows of one video. Defaults to 1.
    """

    sentence: str
    videos: Tensor
    moments: Tensor
    num_windows: int = 1

    @property
    def windows(self) -> Tensor:
        """(W, 2) seconds, the annotated answers."""
        return self.moments[: self.num_windows]

    def alone(self) -> 'AskedSentence':
        """With the annotated answers as the only right ones."""
        own = self.videos[: self.num_windows]
        return AskedSentence(self.sentence, own, self.windows, self.num_windows)


def asked_sentences(
    asked: Sequence[VideoAnnotation], library: Sequence[VideoAnnotation]
) -> list[AskedSentence]:
    """Sentences with their right answers: all moments that carry the same normalized sentence.

    A sentence that does not occur in its video has no annotated answer and is not asked.

    Args:
        asked (Sequence[VideoAnnotation]): Videos whose sentences are asked.
        library (Sequence[VideoAnnotation]): All videos of the library, in its order.

    Returns:
        list[AskedSentence]: S sentences, video by video.

    Raises:
        ValueError: If a video that is asked about is not in the library.
    """
    place = {video.video_id: number for number, video in enumerate(library)}
    same = defaultdict(list)
    for video in library:
        for sentence, windows in zip(video.sentences, video.windows, strict=True):
            answers = [(place[video.video_id], *window) for window in windows]
            same[normalized_text(sentence)] += answers
    found = []
    for video in asked:
        if video.video_id not in place:
            raise InputError(f'video {video.video_id!r} is asked about, and not in the library')
        for sentence, windows in zip(video.sentences, video.windows, strict=True):
            if not windows:
                continue
            own = [(place[video.video_id], *window) for window in windows]
            others = [answer for answer in same[normalized_text(sentence)] if answer not in own]
            rows = torch.tensor([*own, *others], dtype=torch.float64)
            answers = rows[:, 0].long(), rows[:, 1:].float()
            found.append(AskedSentence(sentence, *answers, len(own)))
    return found


def library_figures(
    ranking: LibraryRanking,
    asked: Sequence[AskedSentence],
    top_n: Sequence[int] = TOP_N,
    iou_thrs: Sequence[float] = IOU_THRS,
    top_videos: Sequence[int] = TOP_VIDEOS,
) -> dict[str, float]:
    """Moments and videos found in a library, in percent, and the median rank.

    A hit is right if it is of a right answer's video and has at least that IoU with it
    (corpus-level grounding, Escorcia et al.; TVR's VCMR). Named ``R10@0.5``; ``MedR@0.5``, the
    median over the sentences of the first right hit's rank, or of the number of moments in the
    library where no hit is right; ``VR10``, a right answer's video is among the first 10, and
    ``SumR``, the sum of these (as of partially relevant video retrieval, MS-SL). With the prefix
    ``any/`` every right answer counts, and else the annotated windows alone, of which any is right
    where a sentence has several. ``own/R10@0.5`` is of
    the sentence's own video, where that was ranked (TVR's SVMR).

    Args:
        ranking (LibraryRanking): Of S sentences.
        asked (Sequence[AskedSentence]): The same S sentences.
        top_n (Sequence[int]): The n of R@n. Defaults to (1, 10, 100).
        iou_thrs (Sequence[float]): Defaults to (0.5, 0.7).
        top_videos (Sequence[int]): The n of video retrieval. Defaults to (1, 5, 10, 100).

    Raises:
        ValueError: If there is no sentence, not one ranking for each, or fewer are ranked than
            asked for.
    """
    if len(asked) != len(ranking.videos) or not len(asked):
        raise InputError(f'{len(asked)} sentences, and hits of {len(ranking.videos)}')
    for name, wanted, given in (
        ('R', max(top_n), ranking.videos.shape[1]),
        ('VR', max(top_videos), ranking.best_videos.shape[1]),
    ):
        if wanted > given:
            raise InputError(f'{name}@{wanted} is asked for, but {given} are ranked')
    figures = {}
    for prefix, answers in (('', [one.alone() for one in asked]), ('any/', asked)):
        iou = answered_iou(ranking, answers)  # (S, n)
        for threshold in iou_thrs:
            ranks = first_ranks(iou >= threshold, ranking.pool)
            figures |= {f'{prefix}R{n}@{threshold:g}': _percent(ranks <= n) for n in top_n}
            figures[f'{prefix}MedR@{threshold:g}'] = float(np.median(ranks))
        right = [
            torch.isin(row, one.videos)
            for row, one in zip(ranking.best_videos, answers, strict=True)
        ]
        ranks = first_ranks(torch.stack(right), len(ranking.video_ids) + 1)
        recalls = {f'{prefix}VR{n}': _percent(ranks <= n) for n in top_videos}
        figures |= recalls | {f'{prefix}SumR': sum(recalls.values())}
    if ranking.own_moments is None:
        return figures
    truth = padded_windows([one.windows for one in asked])  # (S, M, 2)
    table = 100 * recall(ranked_iou(ranking.own_moments, truth), top_n, iou_thrs)
    names = [f'own/R{n}@{threshold:g}' for threshold in iou_thrs for n in top_n]
    return figures | dict(zip(names, table.T.flatten().tolist(), strict=True))


def answered_iou(ranking: LibraryRanking, asked: Sequence[AskedSentence]) -> Tensor:
    """(S, n) largest IoU of each hit with a right answer of its video, 0 where there is none."""
    rows = []
    for videos, moments, one in zip(ranking.videos, ranking.moments, asked, strict=True):
        rows.append(_overlaps(videos, moments, one).amax(1))
    return torch.stack(rows)


def _overlaps(videos: Tensor, moments: Tensor, one: AskedSentence) -> Tensor:
    """IoU (n, t) of hits with the right answers; 0 between different videos."""
    iou = temporal_iou(moments[:, None], one.moments).nan_to_num(nan=0.0)
    return iou * (videos[:, None] == one.videos)


def first_ranks(right: Tensor, missed: int) -> np.ndarray:
    """Rank (S,), from 1, of the first right hit of (S, n) bool, and ``missed`` without one."""
    first = right.to(torch.uint8).argmax(1) + 1
    return torch.where(right.any(1), first, missed).numpy()


def _percent(mask) -> float:
    return 100 * float(mask.mean())


def whole_truth_figures(
    ranking: LibraryRanking,
    asked: Sequence[AskedSentence],
    iou_threshold: float = 0.5,
    top_n: Sequence[int] = TOP_N,
) -> dict[str, float]:
    """Precision and recall where all right answers are known, in percent, means over sentences.

    Down the list a hit is right if it has enough IoU with a right answer that no better hit has
    taken: of those it takes the one of largest IoU. ``P@10`` is the share of the first 10 that is
    right, ``recall@10`` that of the answers that the first 10 hold, and ``P@all`` both of them
    among as many hits as there are answers.

    Args:
        ranking (LibraryRanking): Of S sentences.
        asked (Sequence[AskedSentence]): The same S sentences, with all right answers.
        iou_threshold (float): Defaults to 0.5.
        top_n (Sequence[int]): Defaults to (1, 10, 100).
    """
    totals = defaultdict(list)
    for videos, moments, one in zip(ranking.videos, ranking.moments, asked, strict=True):
        right = _matched(_overlaps(videos, moments, one), iou_threshold).cumsum()
        number = len(one.videos)
        for n in top_n:
            totals[f'P@{n}'].append(right[n - 1] / n)
            totals[f'recall@{n}'].append(right[n - 1] / number)
        totals['P@all'].append(right[min(number, len(right)) - 1] / number)
    return {name: 100 * float(np.mean(values)) for name, values in totals.items()}


def _matched(iou: Tensor, threshold: float) -> np.ndarray:
    """Which hits (n,) are right, each answer being taken once, from IoU (n, t)."""
    iou = iou.numpy().copy()
    right = np.zeros(len(iou), dtype=np.int64)
    for row in np.flatnonzero((iou >= threshold).any(1)):
        answer = iou[row].argmax()
        if iou[row, answer] >= threshold:
            right[row] = 1
            iou[:, answer] = 0
    return right
