"""`mmn eval --format answers`: the answers of language models."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    UNITS,
    AnswerReader,
    GroundingMetric,
    GroundingResult,
    ReadAnswer,
    answer_checks,
    answer_counts,
    answers_content,
    format_table,
    match_predictions,
    read_answers,
)
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.structures.annotations import (
    AnnotationError,
    VideoAnnotation,
    read_annotations,
)

_OPTIONS = ('dump', 'unit', 'frame_rate', 'num_frames')
_SHOWN = 3  # unread answers on the screen


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how answers are read."""
    add = parser.add_argument_group('answers of language models (--format answers)').add_argument
    add('--dump', type=writable_file, help='file of predictions to write what was read to (.json)')
    add('--unit', choices=UNITS, help='what bare numbers are; fraction: of the video (seconds)')
    add('--frame-rate', type=float, help='frames per second, to read frame numbers')
    text = 'frames shown of each video, evenly spaced, to read frame numbers'
    add('--num-frames', type=int, help=text)


def require_answer_format(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of answers where there are none."""
    given = [name for name in _OPTIONS if getattr(args, name) is not None]
    if given and args.format != 'answers':
        parser.error(f'--{given[0].replace("_", "-")} needs --format answers')


def require_apart(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse to write a file over one that is read, or two into one."""
    taken = {Path(path).resolve() for path in (args.predictions, args.annotations)}
    if args.subsets:
        taken.add(Path(args.subsets).resolve())
    for name in ('json', 'dump'):
        path = getattr(args, name)
        if path in (None, '-'):
            continue
        if Path(path).resolve() in taken:
            parser.error(f'--{name} {path} would replace another file of this command')
        taken.add(Path(path).resolve())


def usable_annotations(path: str | Path) -> list[VideoAnnotation]:
    """Annotations of a file that has at least one usable sentence.

    Raises:
        AnnotationError: If there is none.
    """
    annotations = read_annotations(path)
    if not annotations:
        raise AnnotationError(
            f'{path} has no usable sentence: there is none, or every one has start >= end'
        )
    return annotations


def print_figures(metric: GroundingMetric, results: Sequence[GroundingResult]) -> dict[str, float]:
    """Print the table of results, and return the figures under the metric's names."""
    rows = metric.summarize(results)
    for note in metric.notes(results):
        print(f'note: {note}', file=sys.stderr)
    print(f'{len(results)} videos; figures in percent\n{format_table(rows)}')
    metrics = metric.flatten(rows) | {'num_videos': len(results)}
    return {f'grounding/{name}': value for name, value in metrics.items()}


def score_answers(args: argparse.Namespace, metric: GroundingMetric) -> dict:
    """Print the table of answers and warnings; return figures, warnings and unread answers."""
    reader = AnswerReader(args.unit or 'seconds', args.frame_rate, args.num_frames)
    annotations = usable_annotations(args.annotations)
    # Sentences that the figures leave out may have been answered as well.
    asked = read_annotations(args.annotations, timed=False)
    answers, left_out = read_answers(args.predictions, asked, reader)
    content = answers_content(answers)
    if args.dump:
        write_json(content, args.dump)
    truth = {
        (video.video_id, index): windows
        for video in annotations
        for index, windows in zip(video.sentence_index, video.windows, strict=True)
    }
    answers = [one for one in answers if (one.video_id, one.index) in truth]
    counts = answer_counts(answers)
    figures, warnings = answer_checks(answers, [truth[one.video_id, one.index] for one in answers])
    _print_counts(counts, answers, left_out, warnings)
    _add_read(metric, answers)
    predictions = {
        name: video | {'sentences': {one['index']: one for one in video['sentences']}}
        for name, video in content['videos'].items()
    }
    results = match_predictions(predictions, annotations, metric.num_ranks)
    unread = [
        dict(video_id=one.video_id, sentence=one.sentence, answer=one.answer)
        for one in answers
        if _is_unread(one)
    ]
    answered = {f'answers/{name}': value for name, value in (counts | figures).items()}
    listed = {'answers/warnings': warnings, 'answers/unread': unread}
    return print_figures(metric, results) | answered | listed


def _is_unread(one: ReadAnswer) -> bool:
    return one.answer is not None and one.reading.reading == 'unread'


def _add_read(metric: GroundingMetric, answers: list[ReadAnswer]) -> None:
    """Report the sentences apart whose answer was read."""
    if 'read' in metric.subsets:
        raise InputError("subset 'read' has the name of the answers that were read: rename it")
    read = metric.subsets.setdefault('read', {})
    for one in answers:
        if one.reading.reading != 'unread':
            read.setdefault(one.video_id, []).append(one.index)


def _print_counts(
    counts: dict[str, int], answers: list[ReadAnswer], left_out: int, warnings: list[str]
) -> None:
    print(
        '{num_sentences} sentences: {num_times} answered with times, {num_absent} as absent, '
        '{num_unread} unread, {num_missing} without an answer; of sentences that occur, unread, '
        'absent and missing ones are misses, "read" is without unread and missing ones'.format(
            **counts
        )
    )
    notes = {
        'spans had their end first, and were swapped': counts['num_swapped'],
        'spans go on after the end of their video, and were cut there': counts['num_clipped'],
        'spans lie after the end of their video': counts['num_outside'],
        'answers are about videos that are not annotated; left out': left_out,
    }
    for text, count in notes.items():
        if count:
            print(f'note: {count} {text}', file=sys.stderr)
    for one in [one for one in answers if _is_unread(one)][:_SHOWN]:
        print(
            f'note: unread, video {one.video_id!r}, {one.sentence!r}: {one.answer[:200]!r}',
            file=sys.stderr,
        )
    for warning in warnings:
        print(f'warning: {warning}', file=sys.stderr)
