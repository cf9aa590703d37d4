"""Moments of a library as answers: overlapping ones suppressed, presence, clips, chapters."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.apis.candidates import Candidate, checked_pad, cut_candidates
from mmn_plugin.apis.video_input import is_entry
from mmn_plugin.errors import InputError, MissingFileError, UserError
from mmn_plugin.features import webvtt
from mmn_plugin.files import OutputFolder, UniqueNames, write_atomically
from mmn_plugin.models.heads.zero_shot_head import read_sentences
from mmn_plugin.structures import nms_within

from .hits import Hits
from .moment_store import Snapshot
from .search import ExactSearch

# Moments that are asked for at first, for one that shall remain after NMS, or one of each video.
FIRST = dict(moment=8, video=16)
GROUPS = tuple(FIRST)
FEWEST = 20  # unrelated sentences, below which nothing is said


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
        iou_threshold (float): As of `nms_within`, of the moments of a video.
        group (str): ``'moment'``; or ``'video'`` for the best moment of each video alone.

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
    threshold = iou_threshold if group == 'moment' else None
    while len(left) and most:
        asked = min(asked, most)
        found = search({space: rows[left] for space, rows in queries.items()}, asked, allowed)
        videos, spans = _moments(snapshot, found)
        stays = nms_within(torch.from_numpy(videos), torch.from_numpy(spans), threshold).numpy()
        done = (stays.sum(1) >= count) | (asked == most)
        for place in np.flatnonzero(done):
            kept = np.flatnonzero(stays[place])[:count]
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


class LibraryPresence:
    """Best scores of unrelated sentences over a whole library, kept until it changes.

    Args:
        library (MomentLibrary): The library.
    """

    KEY = 'unrelated'  # of the store's setting

    def __init__(self, library) -> None:
        self._library = library
        self._queries = self._known = None

    def of(self, scores: np.ndarray) -> np.ndarray | None:
        """Presence of moments by their scores: with k of K unrelated sentences whose best moment
        has a lower score s, ``(k + s) / (K + 1)``.

        None where the model knows the words of too few unrelated sentences.
        """
        unrelated = self.measured()
        if unrelated is None:
            return None
        below = np.searchsorted(unrelated, scores)
        return (below + scores) / (len(unrelated) + 1)

    def measured(self) -> np.ndarray | None:
        """(K,) best scores of unrelated sentences, rising; measured where they are not known."""
        snapshot, search = self._library.current()
        numbers = np.sort(np.fromiter(snapshot.videos, np.int64, len(snapshot.videos)))
        key = self._key(numbers)
        if self._known is None or self._known['key'] != key:
            with suppress(InputError):  # damaged: measured again
                self._known = self._library.store.get(self.KEY)
        if self._known is None or self._known['key'] != key:
            self._measure(snapshot, search, numbers)
        scores = self._known['scores']
        return np.sort(scores) if scores else None

    def _measure(self, snapshot, search, numbers: np.ndarray) -> None:
        """Measure; where nothing but new videos has changed since the last time, in these alone."""
        known, new = self._known, None
        if known is not None and self._key(numbers[numbers <= known['last']]) == known['key']:
            new = numbers[numbers > known['last']].tolist()
        scores = self._best(search, snapshot.allowed(new))
        if new is not None:
            scores = np.maximum(scores, known['scores'])
        last = int(numbers[-1]) if len(numbers) else -1
        self._known = dict(key=self._key(numbers), last=last, scores=scores.tolist())
        if not self._library.store.readonly:
            with suppress(UserError):  # disk full: the library is complete without
                self._library.store.set(self.KEY, self._known)

    def _best(self, search, allowed) -> np.ndarray:
        """(K,) best scores of the unrelated sentences among some moments."""
        if self._queries is None:
            sentences = read_sentences(None)
            checks = self._library.model.model.inspect_sentences(sentences)
            known = [s for s, (_, wrong) in zip(sentences, checks, strict=True) if wrong is None]
            self._queries = self._library.embed_statements(known) if len(known) >= FEWEST else {}
        if not self._queries:
            return np.zeros(0)
        hits = search(self._queries, 1, allowed)
        return np.nan_to_num(hits.score[:, 0])

    def _key(self, numbers: np.ndarray) -> str:
        """What the scores depend on: the videos, whose numbers never come again, and the score."""
        settings = json.dumps(self._library.settings, sort_keys=True).encode()
        return hashlib.sha256(numbers.tobytes() + settings).hexdigest()[:16]


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
    folder: OutputFolder | None,
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
    names, files = UniqueNames(), {}
    for video, cues in chapters.items():
        files[path.with_suffix(f'.{names.of(video, video)}.vtt')] = cues
    if len(files) < 2:
        files = {path: next(iter(files.values()), [])}
    for file, cues in files.items():
        write_atomically(file, webvtt(cues))
    return list(files)
