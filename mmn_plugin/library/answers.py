"""Moments of a library as answers: overlapping ones suppressed, pages, clips, chapters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mmn_plugin.apis.candidates import Candidate, checked_pad, cut_candidates
from mmn_plugin.apis.video_input import is_entry
from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.features import webvtt
from mmn_plugin.files import OutputFolder, safe_name, write_atomically

from .hits import Hits
from .moment_store import Snapshot
from .search import ExactSearch

# Moments that are asked for at first, for one that shall remain after NMS, or one of each video.
FIRST = dict(moment=8, video=16)
GROUPS = tuple(FIRST)


@dataclass(frozen=True)
class Hit:
    """A moment of a library.

    Attributes:
        video_id (str): The video.
        path (str): Its file, or ``FILE.h5::ENTRY`` of features.
        start, end (float): Seconds.
        score (float): In [0, 1] for the heads of this package; rising with similarity.
        presence (float | None): Share of sentences that are in no video whose best moment in the
            whole library has a lower score; None where the model knows too few of their words.
        duration (float): Seconds of the video.
    """

    video_id: str
    path: str
    start: float
    end: float
    score: float
    presence: float | None
    duration: float


def distinct(
    videos: np.ndarray, spans: np.ndarray, count: int, iou_threshold: float, group: str
) -> np.ndarray:
    """Greedy NMS within each video of ranked moments.

    What it keeps of the first of a ranking is the first of what it keeps of the whole ranking.

    Args:
        videos (np.ndarray): (S, K) number of each moment's video, best moment first; -1 for none.
        spans (np.ndarray): (S, K, 2) float32, seconds.
        count (int): Moments to keep.
        iou_threshold (float): IoU with a better moment of its video above which a moment goes.
        group (str): ``'moment'``; or ``'video'`` for the best moment of each video alone.

    Returns:
        np.ndarray: (S, count) places in the rankings, -1 where fewer remain.
    """
    picks = np.full((len(videos), count), -1)
    alive, every = videos >= 0, np.arange(len(videos))
    starts, ends = spans[..., 0], spans[..., 1]
    for rank in range(count if videos.shape[1] else 0):
        best = alive.argmax(1)  # (S,), the first that remains
        there = alive[every, best]
        if not there.any():
            break
        picks[:, rank] = np.where(there, best, -1)
        gone = videos == videos[every, best][:, None]  # (S, K)
        if group == 'moment':
            start, end = (edge[every, best][:, None] for edge in (starts, ends))
            overlap = np.minimum(ends, end) - np.maximum(starts, start)
            hull = np.maximum(ends, end) - np.minimum(starts, start)
            with np.errstate(invalid='ignore'):  # an instant with itself
                gone &= overlap.clip(min=0) / hull > iou_threshold
        alive &= ~gone
        alive[every, best] = False
    return picks


def best_moments(
    search: ExactSearch,
    snapshot: Snapshot,
    queries: Mapping[str, Tensor],
    allowed: Sequence[np.ndarray] | None,
    count: int,
    iou_threshold: float,
    group: str,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The best moments of sentences that remain after NMS: more are asked for until there are
    enough.

    Args:
        search (ExactSearch): Of the snapshot.
        snapshot (Snapshot): The library.
        queries (Mapping[str, Tensor]): (S, J) per space.
        allowed (Sequence[np.ndarray] | None): Rows that are looked at, as of `ExactSearch`.
        count (int): Moments of each sentence.
        iou_threshold (float): As of `distinct`.
        group (str): Likewise.

    Returns:
        list[tuple[np.ndarray, np.ndarray, np.ndarray]]: Of each sentence numbers of videos (n,),
        spans (n, 2) and scores (n,), best first.
    """
    most = sum(map(len, snapshot.video_of_row))
    most = most if allowed is None else sum(int(part.sum()) for part in allowed)
    left = np.arange(len(next(iter(queries.values()))))
    count = min(count, most)
    nothing = np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros(0)
    answers, asked = [nothing for _ in left], FIRST[group] * count
    while len(left) and most:
        asked = min(asked, most)
        found = search({space: rows[left] for space, rows in queries.items()}, asked, allowed)
        videos, spans = _moments(snapshot, found)
        picks = distinct(videos, spans, count, iou_threshold, group)
        done = (picks[:, -1] >= 0) | (asked == most)
        for place in np.flatnonzero(done):
            kept = picks[place][picks[place] >= 0]
            answers[left[place]] = tuple(part[place, kept] for part in (videos, spans, found.score))
        left, asked = left[~done], asked * 4
    return answers


def _moments(snapshot: Snapshot, found: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Videos (S, K), -1 for none, and spans (S, K, 2) of what a search has found."""
    videos = np.full(found.row.shape, -1, np.int64)
    spans = np.zeros((*found.row.shape, 2), np.float32)
    for place, segment in enumerate(snapshot.segments):
        here = found.segment == place
        rows = found.row[here]
        videos[here] = snapshot.video_of_row[place][rows]
        spans[here] = segment.spans[rows]
    return videos, spans


def reranked(hits: list[Hit], rerank: Callable[[list[Hit]], Sequence[Hit]]) -> list[Hit]:
    """Hits as a callable orders them, or those that it leaves.

    Raises:
        ValueError: If it returns anything but a list of hits.
    """
    found = rerank(list(hits))
    if not isinstance(found, list | tuple) or not all(isinstance(one, Hit) for one in found):
        raise InputError(f'rerank must return a list of hits, not {found!r:.80}')
    return list(found)


def hit_candidates(
    sentence: str,
    hits: Sequence[Hit],
    n: int,
    pad: float,
    folder: OutputFolder,
    refine: Callable | None = None,
) -> list[Candidate]:
    """Clips of the first hits of a sentence, for a video LLM: `find_candidates` over a library.

    Raises:
        FileNotFoundError: If a video is not where it was when it was added, or was added as
            features; before any clip is cut.
        ValueError: If ``n`` or ``pad`` is out of range.
    """
    pad = checked_pad(n, pad)
    for hit in hits[:n]:
        if is_entry(hit.path):
            raise MissingFileError(
                f'video {hit.video_id!r} was added as features ({hit.path}): there is no file to '
                'cut a clip out of. Add the video itself, or leave out the clips'
            )
        if not Path(hit.path).is_file():
            raise MissingFileError(
                f'video {hit.video_id!r} is not at {hit.path} any more, so that no clip can be '
                'cut: put it back, or add it from its new place (`mmn library add`)'
            )
    moments = [(hit.path, (hit.start, hit.end), hit.score, hit.duration) for hit in hits[:n]]
    return cut_candidates(folder, sentence, moments, pad, refine)


def write_chapters(
    path: Path, sentences: Sequence[str], answers: Sequence[Sequence[Hit]]
) -> list[Path]:
    """Write hits as WebVTT chapters: a file; or one for each video, ``NAME.VIDEO.vtt``.

    Returns:
        list[Path]: What was written.
    """
    chapters: dict[str, list] = {}
    for sentence, hits in zip(sentences, answers, strict=True):
        for hit in hits:
            chapters.setdefault(hit.video_id, []).append((hit.start, hit.end, sentence))
    if len(chapters) < 2:
        files = {path: next(iter(chapters.values()), [])}
    else:
        names = {video: path.with_suffix(f'.{safe_name(video)}.vtt') for video in chapters}
        files = {names[video]: cues for video, cues in chapters.items()}
    for file, cues in files.items():
        write_atomically(file, webvtt(cues))
    return list(files)
