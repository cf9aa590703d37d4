"""Searches over many videos, which video and when in it: their figures, and TVR's files of them.

TVR (ECCV 2020): ``video2idx`` numbers the videos; ``VCMR`` (moments of all videos), ``SVMR``
(moments of the given video) and ``VR`` (videos) list for each sentence ``desc_id``, ``desc`` and at
most 100 ``predictions`` ``[video number, start, end, score]``, in their order.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json, write_atomically
from mmn_plugin.structures import normalized_text, padded_windows, temporal_iou
from mmn_plugin.structures.annotations import VideoAnnotation

from .library_ranking import LibraryRanking
from .predictions import PredictionsError, is_number, require
from .recall import ranked_iou, recall

TOP_N = (1, 10, 100)
TOP_VIDEOS = (1, 5, 10, 100)
IOU_THRS = (0.5, 0.7)
LONGEST = 100  # predictions of a sentence that TVR's evaluation takes


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
        rows = zip(ranking.videos, ranking.moments, answers, strict=True)
        iou = torch.stack([_overlaps(*row).amax(1) for row in rows])  # (S, n)
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
    ranking: LibraryRanking, asked: Sequence[AskedSentence], top_n: Sequence[int] = TOP_N
) -> dict[str, float]:
    """Precision and recall where all right answers are known, in percent, means over sentences.

    Down the list a hit is right if it has an IoU of at least 0.5 with a right answer that no better
    hit has taken: of those it takes the one of largest IoU. ``P@10`` is the share of the first 10
    that is right, ``recall@10`` that of the answers that the first 10 hold, and ``P@all`` both of
    them among as many hits as there are answers.

    Args:
        ranking (LibraryRanking): Of S sentences.
        asked (Sequence[AskedSentence]): The same S sentences, with all right answers.
        top_n (Sequence[int]): Defaults to (1, 10, 100).
    """
    totals = defaultdict(list)
    for videos, moments, one in zip(ranking.videos, ranking.moments, asked, strict=True):
        right = _matched(_overlaps(videos, moments, one)).cumsum()
        number = len(one.videos)
        for n in top_n:
            totals[f'P@{n}'].append(right[n - 1] / n)
            totals[f'recall@{n}'].append(right[n - 1] / number)
        totals['P@all'].append(right[min(number, len(right)) - 1] / number)
    return {name: 100 * float(np.mean(values)) for name, values in totals.items()}


def _matched(iou: Tensor) -> np.ndarray:
    """Which hits (n,) are right, each answer being taken once, from IoU (n, t)."""
    iou, threshold = iou.numpy().copy(), 0.5
    right = np.zeros(len(iou), dtype=np.int64)
    for row in np.flatnonzero((iou >= threshold).any(1)):
        answer = iou[row].argmax()
        if iou[row, answer] >= threshold:
            right[row] = 1
            iou[:, answer] = 0
    return right


def write_tvr(path: str | Path, ranking: LibraryRanking, asked: Sequence[AskedSentence]) -> None:
    """Write the best 100 of each sentence; ``desc_id`` counts the sentences from 0.

    Args:
        path (str | Path): File to write.
        ranking (LibraryRanking): Of S sentences; without ``own_moments`` there is no ``SVMR``.
        asked (Sequence[AskedSentence]): The same S sentences.

    Raises:
        PredictionsError: If a time or a score is infinite.
    """
    tasks = dict(VCMR=(ranking.videos, ranking.moments, ranking.scores))
    if ranking.own_moments is not None:
        own = torch.stack([one.videos[0] for one in asked])[:, None].expand_as(ranking.own_scores)
        own = own.masked_fill(ranking.own_scores.isnan(), -1)
        tasks['SVMR'] = own, ranking.own_moments, ranking.own_scores
    nowhere = ranking.video_scores[..., None] * torch.zeros(2)
    tasks['VR'] = ranking.best_videos, nowhere, ranking.video_scores
    content = dict(video2idx={name: place for place, name in enumerate(ranking.video_ids)})
    for task, (videos, moments, scores) in tasks.items():
        content[task] = [
            dict(desc_id=number, desc=one.sentence, predictions=_listed(*rows))
            for number, (one, *rows) in enumerate(zip(asked, videos, moments, scores, strict=True))
        ]
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise PredictionsError(f'{path}: not written, a time or a score is infinite') from error
    write_atomically(path, text)


def _listed(videos: Tensor, moments: Tensor, scores: Tensor) -> list[list]:
    there = (videos >= 0).nonzero()[:LONGEST, 0]
    rows = zip(videos[there].tolist(), moments[there].tolist(), scores[there].tolist(), strict=True)
    return [[video, *moment, score] for video, moment, score in rows]


def read_tvr(
    path: str | Path, asked: Sequence[AskedSentence], video_ids: Sequence[str], pool: int
) -> LibraryRanking:
    """Read a file of TVR's form, such as other methods write.

    Args:
        path (str | Path): The file, with ``VCMR`` and ``VR``, and perhaps ``SVMR``.
        asked (Sequence[AskedSentence]): S sentences; ``desc_id`` is the place among them.
        video_ids (Sequence[str]): Videos of the library, as `asked` counts them.
        pool (int): Moments that were searched, for the median rank.

    Returns:
        LibraryRanking: 100 hits and 100 videos of each sentence.

    Raises:
        FileNotFoundError: If there is no such file.
        PredictionsError: If it is not of this form, a sentence is missing or another one, or a
            video is not in the library.
    """
    path = Path(path)
    content = read_json(path, f'file of predictions {path} does not exist', PredictionsError)
    numbers = content.get('video2idx') if isinstance(content, dict) else None
    require(isinstance(numbers, dict), f'{path} has no "video2idx": {{video id: number}}')
    place = {name: place for place, name in enumerate(video_ids)}
    unknown = sorted(set(numbers) - set(place))
    require(not unknown, f'{path}: video {unknown[:1]} is not in the library')
    place = {number: place[name] for name, number in numbers.items()}
    found = {
        task: _read_task(f'{path}: {task}', content[task], asked, place)
        for task in ('VCMR', 'SVMR', 'VR')
        if task in content
    }
    require({'VCMR', 'VR'} <= set(found), f'{path} needs "VCMR" and "VR"; it has {list(found)}')
    videos, moments, scores = found['VCMR']
    best, _, best_scores = found['VR']
    own = found.get('SVMR', (None, None, None))[1:]
    return LibraryRanking(video_ids, pool, videos, moments, scores, best, best_scores, *own)


def _read_task(where: str, rows: list, asked: Sequence[AskedSentence], place: dict) -> tuple:
    require(isinstance(rows, list), f'{where} is no list')
    by_number = {row.get('desc_id'): row for row in rows if isinstance(row, dict)}
    videos = torch.full((len(asked), LONGEST), -1)
    moments = torch.full((len(asked), LONGEST, 2), torch.nan)
    scores = torch.full((len(asked), LONGEST), torch.nan, dtype=torch.float64)
    for number, one in enumerate(asked):
        row = by_number.get(number)
        require(row, f'{where} lacks desc_id {number} ({one.sentence!r})')
        require(
            row.get('desc') == one.sentence,
            f'{where}: desc_id {number} is {row.get("desc")!r}, but {one.sentence!r} in the '
            'annotations',
        )
        listed = row.get('predictions')
        require(isinstance(listed, list), f'{where}: desc_id {number} has no "predictions"')
        for rank, entry in enumerate(listed[:LONGEST]):
            require(
                isinstance(entry, list) and len(entry) == 4 and all(map(is_number, entry)),
                f'{where}: desc_id {number} has {entry!r}; expected [video number, start, end, '
                'score]',
            )
            require(entry[0] in place, f'{where}: desc_id {number} has the video {entry[0]}')
            videos[number, rank], scores[number, rank] = place[entry[0]], entry[3]
            moments[number, rank] = torch.tensor(entry[1:3])
    return videos, moments, scores
