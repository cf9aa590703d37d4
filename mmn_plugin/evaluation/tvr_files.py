"""TVR's files of searches over many videos, written and read.

``video2idx`` numbers the videos; ``VCMR`` (moments of all videos), ``SVMR`` (moments of the given
video) and ``VR`` (videos) list for each sentence ``desc_id``, ``desc`` and at most 100
``predictions`` ``[video number, start, end, score]``, in their order (TVR, ECCV 2020).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmn_plugin.files import read_json, write_atomically

from .library_metric import AskedSentence
from .library_ranking import LibraryRanking
from .predictions import PredictionsError, is_number, require

LONGEST = 100  # predictions of a sentence that TVR's evaluation takes
TASKS = ('VCMR', 'SVMR', 'VR')


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
        for task in TASKS
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
