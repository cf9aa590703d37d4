"""Annotation files: videos with sentences and the moments at which they occur."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmn_plugin.errors import InputError
from mmn_plugin.files import read_json

from .json_lines import is_number


class AnnotationError(InputError):
    """An annotation file that cannot be used; the message names file, video and sentence.

    Args:
        message (str): For the user.
        kind (str): What kind of flaw it is, for tables. Defaults to 'malformed entry'.
    """

    def __init__(self, message: str, kind: str = 'malformed entry'):
        super().__init__(message)
        self.kind = kind


@dataclass
class VideoAnnotation:
    """The usable sentences of one video.

    Attributes:
        video_id (str): Key of the video in the annotation file and the feature files.
        duration (float): Seconds.
        windows (list[list[tuple[float, float]]] | None): For each sentence the windows in which it
            is true, start and end in seconds within [0, ``duration``], in the file's order; none
            for a sentence that does not occur. None where they were not read. An entry that is a
            single (start, end) becomes a list of it.
        sentences (list[str]): Exactly as annotated.
        sentence_index (list[int]): The sentence's place in the file's own list, which counts the
            dropped ones too.
    """

    video_id: str
    duration: float
    windows: list[list[tuple[float, float]]] | None
    sentences: list[str]
    sentence_index: list[int]

    def __post_init__(self):
        if self.windows is not None:
            self.windows = [as_windows(entry) for entry in self.windows]

    @property
    def moments(self) -> list[tuple[float, float]] | None:
        """Each sentence's only window; None where they were not read.

        Raises:
            AnnotationError: If a sentence has none or several.
        """
        if self.windows is None:
            return None
        found = zip(self.sentence_index, self.sentences, self.windows, strict=True)
        for index, sentence, windows in found:
            if len(windows) != 1:
                raise AnnotationError(
                    f'video {self.video_id!r}, sentence {index} ({sentence!r}) has {len(windows)} '
                    'windows; this is for sentences that have exactly one'
                )
        return [window for (window,) in self.windows]


def as_windows(entry: Sequence) -> list[tuple[float, float]]:
    """Windows of a sentence, given as one [start, end], as a list of them, or as []."""
    single = len(entry) and not np.ndim(entry[0])
    return [tuple(window) for window in ([entry] if single else entry)]


# Part of a character that UTF-16 writes in two, or a byte of undecodable text: no encoding has it.
LONE_SURROGATE = re.compile('[\ud800-\udfff]')


def broken_character(text: str) -> str | None:
    """What is wrong with a text that holds part of a character; None where it does not."""
    part = LONE_SURROGATE.search(text)
    return part and (
        f'holds {part[0]!r}, which is no character but part of one (text was cut, or decoded '
        'wrongly)'
    )


ROUNDING = 1e-6  # seconds that an end may lie past a duration, which is often a rounded number


def read_annotations(path: str | Path, timed: bool = True) -> list[VideoAnnotation]:
    """Read a file of annotations in the published format.

    The file maps a video's id to ``timestamps`` and ``sentences``, and either to ``duration`` (then
    all times are seconds) or to ``fps`` and ``num_frames`` (then they are frames: time = frame /
    fps, duration = num_frames / fps). A sentence's timestamp is [start, end], a list of such
    windows, or [] for a sentence that does not occur in the video. As published, a sentence whose
    start >= end as annotated is dropped, then start is clamped to >= 0 and end to <= duration. The
    same holds for each window of a list, and a sentence of whose list none is left is dropped. A
    video left without a sentence is dropped.

    Args:
        path (str | Path): JSON file.
        timed (bool): Whether ``timestamps`` are read. Without, they may be absent, wrong, or others
            than the sentences', and no sentence is dropped for them; ``windows`` is None then.
            Defaults to True.

    Returns:
        list[VideoAnnotation]: In the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        AnnotationError: If it is not in the published format or a moment lies outside its video.
    """
    content = load_annotation_file(path)
    videos = [parse_video(path, *entry, timed) for entry in content.items()]
    return [video for video in videos if video.sentences]


def load_annotation_file(path: str | Path) -> dict:
    """Load an annotation file as it stands: video id -> entry, for `parse_video`.

    Raises:
        FileNotFoundError: If the file does not exist.
        AnnotationError: If it is not JSON, is empty, or is not an object.
    """
    path = Path(path)
    content = read_json(
        path,
        f'annotation file {path} does not exist; see tools/data/ for where to get it, or '
        'correct ann_file / data_root in the config',
        AnnotationError,
    )
    if not isinstance(content, dict) or not content:
        raise AnnotationError(
            f'{path} holds no videos; expected a JSON object '
            '{video id: {"duration": ..., "timestamps": ..., "sentences": ...}}'
        )
    return content


def parse_video(
    path: str | Path,
    video_id: str,
    entry: dict,
    timed: bool = True,
    flaws: list[tuple[str, str, str]] | None = None,
    absent: bool = True,
) -> VideoAnnotation:
    """Apply the rules of `read_annotations` to one video; it may be left without a sentence.

    Args:
        path (str | Path): The file the entry is from, for error messages.
        video_id (str): Key of the video.
        entry (dict): Its value in the file.
        timed (bool): See `read_annotations`. Defaults to True.
        flaws (list, optional): Takes level (``'error'`` or, where the rules mend it,
            ``'warning'``), kind and message of what is wrong with single moments, which are left
            out then. Defaults to None: the first error is raised.
        absent (bool): Whether sentences are kept whose timestamp is []. Defaults to True.

    Raises:
        AnnotationError: If the entry is not in the format; without ``flaws`` also if a moment lies
            outside its video.
    """
    where = f'{path}: video {video_id!r}'
    if not isinstance(entry, dict):
        raise AnnotationError(
            f'{where} is {entry!r}, not an object with "timestamps", "sentences" '
            'and "duration" (or "fps" and "num_frames")'
        )
    duration, unit = _duration_and_unit(where, entry)
    timestamps, sentences = _lists(where, entry, timed)
    video = VideoAnnotation(video_id, duration, [] if timed else None, [], [])
    found, left_out = [] if flaws is None else flaws, set() if absent else absent_sentences(entry)
    for index, (timestamp, sentence) in enumerate(zip(timestamps, sentences, strict=True)):
        here = f'{where}, sentence {index} ({sentence!r})'
        if not isinstance(sentence, str):
            raise AnnotationError(f'{here} is not a string')
        if index in left_out:
            found.append(('warning', 'sentence that does not occur: left out', here))
            continue
        if timed:
            windows = _windows(here, timestamp, duration, unit, found)
            if windows is None:
                continue
            video.windows.append(windows)
        video.sentences.append(sentence)
        video.sentence_index.append(index)
    errors = [AnnotationError(message, kind) for level, kind, message in found if level == 'error']
    if flaws is None and errors:
        raise errors[0]
    return video


def _lists(where: str, entry: dict, timed: bool) -> tuple[list, list]:
    """An entry's timestamps, or where they are not read its sentences instead; and sentences."""
    sentences = entry.get('sentences')
    timestamps = entry.get('timestamps') if timed else sentences
    if not isinstance(timestamps, list) or not isinstance(sentences, list):
        lists = 'lists "timestamps" and "sentences"' if timed else 'list "sentences"'
        raise AnnotationError(f'{where} needs the {lists}')
    counts = f'{len(timestamps)} timestamps but {len(sentences)} sentences'
    if len(timestamps) != len(sentences):
        raise AnnotationError(f'{where} has {counts}; they belong together one to one')
    return timestamps, sentences


def absent_sentences(entry: dict) -> set[int]:
    """Places of an entry's sentences that do not occur; none where timestamps are others'."""
    timestamps, sentences = entry.get('timestamps'), entry['sentences']
    if not isinstance(timestamps, list) or len(timestamps) != len(sentences):
        return set()
    return {place for place, timestamp in enumerate(timestamps) if timestamp == []}


def _duration_and_unit(where: str, entry: dict) -> tuple[float, float]:
    """Duration in seconds, and how many of the annotation's time units make a second."""
    in_frames = 'fps' in entry and 'num_frames' in entry
    if in_frames == ('duration' in entry):
        raise AnnotationError(
            f'{where} needs either "duration" (times in seconds) or "fps" and '
            f'"num_frames" (times in frames); it has {sorted(entry)}'
        )
    for key in ('fps', 'num_frames') if in_frames else ('duration',):
        if not is_number(entry[key]) or entry[key] <= 0:
            raise AnnotationError(
                f'{where} has {key}={entry[key]!r}; it must be a number above 0',
                'non-positive duration' if is_number(entry[key]) else 'malformed entry',
            )
    if in_frames:
        return entry['num_frames'] / entry['fps'], entry['fps']
    return float(entry['duration']), 1.0


def _windows(
    here: str, timestamp: list, duration: float, unit: float, flaws: list
) -> list[tuple[float, float]] | None:
    """Clamped seconds of one sentence's windows; None where the sentence is left out."""
    if _is_window(timestamp):
        window = _window(here, timestamp, duration, unit, 'sentence', flaws)
        return None if window is None else [window]
    if not isinstance(timestamp, list) or not all(map(_is_window, timestamp)):
        raise AnnotationError(
            f'{here} has the timestamp {timestamp!r}; expected [start, end], a list of them, or [] '
            'for a sentence that does not occur'
        )
    found = [_window(here, window, duration, unit, 'window', flaws) for window in timestamp]
    windows = [window for window in found if window is not None]
    if timestamp and not windows:
        message = f'{here}: none of its {len(timestamp)} windows is left'
        flaws.append(('warning', 'no usable window: sentence dropped', message))
        return None
    return windows


def _is_window(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _window(
    here: str, window: list, duration: float, unit: float, dropped: str, flaws: list
) -> tuple[float, float] | None:
    """Clamped seconds of one window; None where it is left out, as what is ``dropped`` says."""
    start, end = (time / unit for time in window)
    span = f'{here}: its moment, {start:.9g} to {end:.9g} s,'
    inside = f'the video of {duration:.9g} s'
    if window[0] >= window[1]:
        flaws.append(('warning', f'start >= end: {dropped} dropped', f'{span} has start >= end'))
        return None
    # Published code would go on with a moment of negative length; no rule mends such a sentence.
    if start >= duration or end <= 0:
        message = (
            f'{span} lies outside {inside}; correct it or remove the sentence (are the times in '
            'the unit that the file says?)'
        )
        flaws.append(('error', 'moment outside its video', message))
        return None
    if start < 0:
        message = f'{span} begins before {inside}'
        flaws.append(('warning', 'start before the video: clamped to 0', message))
    if end > duration + ROUNDING:
        message = f'{span} ends after {inside}'
        flaws.append(('warning', 'end after the video: clamped to its end', message))
    return float(max(start, 0.0)), float(min(end, duration))


# Letters and digits with the marks that belong to them; everything else only separates words.
_WORD = re.compile(r'[^\W_]+')


def normalized_text(sentence: str) -> str:
    """The sentence's words, without case, punctuation and white space around them.

    ``'A person opens the  door.'`` and ``'a person opens the door'`` are the same text.
    """
    folded = unicodedata.normalize('NFKC', sentence).casefold()
    return ' '.join(_WORD.findall(folded))
