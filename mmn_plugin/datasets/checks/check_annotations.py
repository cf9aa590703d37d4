"""Check an annotation file."""

from pathlib import Path
from typing import Any

from ...structures.annotation_error import AnnotationError
from ...structures.annotations import (
    LONE_SURROGATE,
    load_annotation_file,
    parse_sentences,
    parse_video,
)
from ...structures.video_annotation import VideoAnnotation
from .check_report import CheckReport


def check_annotations(
    path: str | Path, split: str, report: CheckReport, weak: bool = False
) -> list[VideoAnnotation]:
    """Check every video of an annotation file.

    Args:
        path (str | Path): Annotation file in the published format.
        split (str): Its name in the report.
        report (CheckReport): Takes what is found.
        weak (bool): Of a weakly-supervised dataset: timestamps are not looked at. Defaults to
            False.

    Returns:
        list[VideoAnnotation]: The usable videos, as the dataset would hold them.
    """
    try:
        content = load_annotation_file(path)
    except (FileNotFoundError, AnnotationError) as error:
        report.add('error', split, 'unusable annotation file', str(error))
        return []
    videos = []
    for video_id, entry in content.items():
        blamed = not weak and _check_entry(path, video_id, entry, split, report)
        try:
            video = (parse_sentences if weak else parse_video)(path, video_id, entry)
        except AnnotationError as error:
            if not blamed:  # else it is already counted under its kind
                report.add('error', split, 'malformed entry', str(error))
            continue
        _check_sentences(path, video, split, report)
        if video.sentences:
            videos.append(video)
        else:
            report.add(
                'warning',
                split,
                'video without usable sentence: dropped',
                f'{Path(path).name}: video {video_id!r}',
            )
    report.count(split, videos=len(videos), sentences=sum(len(v.sentences) for v in videos))
    return videos


def _check_entry(path, video_id: str, entry: Any, split: str, report: CheckReport) -> bool:
    """Report the faults of one video that have a name; True where an error is among them."""
    where = f'{Path(path).name}: video {video_id!r}'
    duration, unit = _duration(entry)
    if duration is None:
        return False
    if duration <= 0:
        report.add('error', split, 'non-positive duration', f'{where}: {duration:g} s')
        return True
    blamed = False
    pairs = zip(entry.get('timestamps') or [], entry.get('sentences') or [], strict=False)
    for index, (timestamp, sentence) in enumerate(pairs):
        try:
            start, end = (float(time) / unit for time in timestamp)
        except (TypeError, ValueError):
            continue  # parse_video says what is wrong with it
        here = (
            f'{where}, sentence {index} ({sentence!r}): {start:.9g} to {end:.9g} s of '
            f'{duration:.9g} s'
        )
        if start >= end:
            report.add('warning', split, 'start >= end: sentence dropped', here)
        elif start >= duration or end <= 0:
            report.add('error', split, 'moment outside its video', here)
            blamed = True
        else:
            if start < 0:
                report.add('warning', split, 'start before the video: clamped to 0', here)
            if end > duration:
                report.add('warning', split, 'end after the video: clamped to its end', here)
    return blamed


def _check_sentences(path, video: VideoAnnotation, split: str, report: CheckReport) -> None:
    for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
        what = None if sentence.strip() else 'empty sentence'
        if LONE_SURROGATE.search(sentence):
            what = 'sentence with a part of a character'
        if what:
            report.add(
                'error',
                split,
                what,
                f'{Path(path).name}: video {video.video_id!r}, sentence {index} ({sentence!r})',
            )


def _duration(entry: Any) -> tuple[float | None, float]:
    """Duration in seconds (None where it cannot be read) and time units per second."""
    try:
        if 'duration' in entry:
            return float(entry['duration']), 1.0
        if float(entry['fps']) <= 0:
            return 0.0, 1.0
        return float(entry['num_frames']) / float(entry['fps']), float(entry['fps'])
    except (TypeError, ValueError, KeyError):
        return None, 1.0
