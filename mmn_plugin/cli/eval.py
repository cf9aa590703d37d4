"""The command ``eval`` of `mmn_plugin.cli.main`: it reads two files, and does without models."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import mmn_plugin
from mmn_plugin.cli.main import STDOUT, Parser
from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    UNITS,
    AnswerReader,
    GroundingMetric,
    GroundingResult,
    ReadAnswer,
    TubeResult,
    answer_checks,
    answer_counts,
    answers_content,
    format_table,
    match_predictions,
    qvhighlights_figures,
    read_answers,
    read_predictions,
    read_qvhighlights,
    read_submission,
    score_submission,
)
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.structures.annotations import (
    AnnotationError,
    VideoAnnotation,
    read_annotations,
)

_ANSWER_OPTIONS = ('dump', 'unit', 'frame_rate', 'num_frames')
_SHOWN = 3  # unread answers on the screen


def parse_eval(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('eval', run_eval.__doc__)
    add = parser.add_argument
    text = 'file of predictions or answers (.json, with --format .jsonl)'
    add('predictions', type=Path, help=text)
    text = 'annotation file (.json, of QVHighlights .jsonl), of tubes also a tube file (.h5)'
    add('annotations', type=Path, help=text)
    text = 'format of the files (default: moments or tubes, by their content)'
    add('--format', choices=['qvhighlights', 'answers'], help=text)
    text = 'of qvhighlights: leave out queries that one of the files lacks, else an error'
    add('--shared-only', action='store_true', help=text)
    text = 'thresholds: m of IoU=m (0.3 0.5 0.7), of tubes R of vIoU@R (0.3 0.5)'
    add('--iou', type=float, nargs='+', help=text)
    _add_moment_options(parser)
    _add_answer_options(parser)
    args = parser.parse_args(argv)
    _refuse_misfits(parser, args)
    _require_apart(parser, args)
    return args


def _add_moment_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('moments').add_argument
    add('--top-n', type=int, nargs='+', default=[1, 5], help='n of R@n (1 5)')
    text = 'edges between groups by length of the moment (10 30)'
    add('--duration-buckets', type=float, nargs='*', default=[10, 30], help=text)
    text = 'unit of the edges; share: of the video (seconds)'
    add('--duration-unit', choices=['seconds', 'share'], default='seconds', help=text)
    text = 'JSON file {name: {video id: [sentence index, ...]}} of groups to report apart'
    add('--subsets', help=text)
    text = 'mAP also where every sentence has one window (else where one has several)'
    add('--average-precision', action='store_true', help=text)
    text = 'presence below which a sentence is rejected (default: only one without a moment)'
    add('--presence-threshold', type=float, metavar='X', help=text)
    add = parser.add_argument_group('chance level (a random ranking after NMS)').add_argument
    add('--chance-clips', type=int, metavar='N', help='num_clips of the grid')
    add('--chance-counts', type=int, nargs='+', metavar='C', help='pooling_counts of the grid')
    add('--chance-nms', type=float, metavar='IOU', help='threshold of NMS')
    add('--chance-seed', type=int, default=0, help='of the random rankings (0)')


def _add_answer_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('answers of language models (--format answers)').add_argument
    add('--dump', type=writable_file, help='file of predictions to write what was read to (.json)')
    add('--unit', choices=UNITS, help='what bare numbers are; fraction: of the video (seconds)')
    add('--frame-rate', type=float, help='frames per second, to read frame numbers')
    text = 'frames shown of each video, evenly spaced, to read frame numbers'
    add('--num-frames', type=int, help=text)


def _refuse_misfits(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go with each other, or with the format."""
    given = [name for name in _ANSWER_OPTIONS if getattr(args, name) is not None]
    if given and args.format != 'answers':
        parser.error(f'--{given[0].replace("_", "-")} needs --format answers')
    given = [args.chance_clips, args.chance_counts, args.chance_nms]
    if any(value is not None for value in given) and None in given:
        parser.error('the chance level needs --chance-clips, --chance-counts and --chance-nms')
    if args.shared_only and args.format != 'qvhighlights':
        parser.error('--shared-only needs --format qvhighlights')
    if args.format is None and args.predictions.suffix == '.jsonl':
        parser.error(f'{args.predictions} is of which format? --format qvhighlights or answers')
    taken = ('predictions', 'annotations', 'format', 'shared_only', 'json')
    for name, value in vars(args).items() if args.format == 'qvhighlights' else ():
        if name not in taken and value != parser.get_default(name):
            parser.error(f'--format {args.format} does not take --{name.replace("_", "-")}')


def _require_apart(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse to write a file over one that is read, or two into one."""
    files = (args.predictions, args.annotations, args.subsets)
    taken = {Path(path).resolve() for path in files if path}
    for name in ('json', 'dump'):
        path = getattr(args, name)
        if path in (None, STDOUT):
            continue
        if Path(path).resolve() in taken:
            parser.error(f'--{name} {path} would replace another file of this command')
        taken.add(Path(path).resolve())


def run_eval(args: argparse.Namespace, answer: Callable) -> int:
    """Score a file of predictions against annotations, without a model.

        mmn eval PRED.json ANN.json        # moments
        mmn eval ANSWERS.json TRUTH        # tubes
        mmn eval PRED.jsonl TRUTH.jsonl --format qvhighlights

    PRED.json is what ``tools/test.py --dump PRED.json`` writes, or any file of that format
    (docs/predictions.md); ANN.json is in the published annotation format. The same rules drop and
    clamp annotations, and the same functions compute the figures, as in the evaluation loop. Where
    sentences are true several times there is mAP as well, and where some do not occur AUROC of
    presence, and how many are rejected, with --presence-threshold.

    ANSWERS.json is what ``tools/test.py --submission`` writes, in the format of the HC-STVG
    challenge; TRUTH is the dataset's annotation JSON, or a tube file (.h5). A video without an
    answer counts as 0; impossible answers (a frame twice, a box that ends before it begins, ...)
    are refused by name.

    With ``--format qvhighlights`` both files have one object a line, as Moment-DETR, QD-DETR,
    UniVTG, R2-Tuning and Lighthouse write them; the figures are those of the published evaluator.

        mmn eval ANSWERS.jsonl ANN.json --format answers --dump PRED.json      # free text

    ANSWERS.jsonl has a line {"video_id": ..., "sentence": ..., "answer": ...} for each answer of a
    language model, of which the times are read (docs/predictions.md).

    Figures are in percent.
    """
    if args.format == 'qvhighlights':
        answer(score_qvhighlights(args))
    elif args.format == 'answers':
        answer(score_answers(args, _metric(args)))
    else:
        answer(score_tubes(args) if _holds_tubes(args) else score_moments(args))
    return 0


@contextmanager
def _naming_both(args: argparse.Namespace):
    """Name both files where they do not fit together."""
    try:
        yield
    except InputError as error:
        raise InputError(f'{args.predictions} against {args.annotations}: {error}') from error


def _holds_tubes(args: argparse.Namespace) -> bool:
    """Whether the files are of tubes, by the annotations' suffix and how the answers begin."""
    if args.annotations.suffix == '.h5':
        return True
    if not args.predictions.is_file():
        return False
    with open(args.predictions, encoding='utf-8', errors='replace') as file:
        start = file.read(1 << 16)
    return '"st_frame"' in start or '"bbox"' in start


def _metric(args: argparse.Namespace) -> GroundingMetric:
    """The metric that the command line asks for."""
    chance = None
    if args.chance_clips is not None:
        mmn_plugin.register_components()  # NMS is a part of the models
        names = ('num_clips', 'pooling_counts', 'iou_threshold', 'seed')
        values = (args.chance_clips, args.chance_counts, args.chance_nms, args.chance_seed)
        chance = dict(zip(names, values, strict=True))
    return GroundingMetric(
        args.top_n,
        args.iou or [0.3, 0.5, 0.7],
        args.duration_buckets,
        args.duration_unit,
        args.subsets,
        chance,
        args.average_precision,
        args.presence_threshold,
    )


def _usable_annotations(path: Path) -> list[VideoAnnotation]:
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


def _print_figures(metric: GroundingMetric, results: Sequence[GroundingResult]) -> dict[str, float]:
    """Print the table of results, and return the figures under the metric's names."""
    rows = metric.summarize(results)
    for note in metric.notes(results):
        print(f'note: {note}', file=sys.stderr)
    print(f'{len(results)} videos; figures in percent\n{format_table(rows)}')
    metrics = metric.flatten(rows) | {'num_videos': len(results)}
    return {f'grounding/{name}': value for name, value in metrics.items()}


def score_moments(args: argparse.Namespace) -> dict[str, float]:
    """Print the table of moments, and return the figures under the metric's names."""
    metric = _metric(args)
    predictions = read_predictions(args.predictions)
    annotations = _usable_annotations(args.annotations)
    with _naming_both(args):
        results = match_predictions(predictions, annotations, metric.num_ranks)
    for note in _notes(predictions, annotations, max(args.top_n)):
        print(f'note: {note}', file=sys.stderr)
    return _print_figures(metric, results)


def score_tubes(args: argparse.Namespace) -> dict[str, float]:
    """Print the figures of tubes, and return them under the metric's names."""
    answers, truth = read_submission(args.predictions), read_true_tubes(args.annotations)
    with _naming_both(args):
        figures = score_submission(answers, truth, args.iou or [0.3, 0.5])
    figures = {f'tubes/{name}': 100 * value for name, value in figures.items()}
    print(f'{len(truth)} true tubes, {len(answers)} answers; figures in percent')
    missing = sorted(truth.keys() - answers.keys())
    if missing:
        shown = ', '.join([*missing[:3], *(['...'] if missing[3:] else [])])
        print(f'{len(missing)} without an answer count as 0: {shown}')
    for name, value in figures.items():
        print(f'{name:<16}{value:.2f}')
    return figures


def score_qvhighlights(args: argparse.Namespace) -> dict[str, dict]:
    """Print the figures that papers print, and return all under the published names."""
    pairs, notes = read_qvhighlights(args.predictions, args.annotations, args.shared_only)
    for note in notes:
        print(f'note: {note}', file=sys.stderr)
    figures = qvhighlights_figures(pairs)
    print(f'{len(pairs)} queries; figures in percent')
    for name, value in figures['brief'].items():
        print(f'{name:<24}{value:6.2f}')
    return figures


def read_true_tubes(path: Path) -> dict[str, np.ndarray]:
    """True tubes by the names that a submission uses.

    Raises:
        TubeError: If there are none.
    """
    mmn_plugin.register_components()  # the readers stand beside the datasets
    from mmn_plugin.datasets import TubeError, TubeFile, read_hcstvg_annotations

    if path.suffix == '.json':
        found = read_hcstvg_annotations(path).items()
        tubes = {video: tube for video, (_, tube) in found if tube is not None}
    else:
        file = TubeFile(path)
        results = [
            TubeResult(one.video_id, one.sentence_index, one.sentences, one.ground_truth, [])
            for one in map(file.read, file.video_ids())
            if one.ground_truth
        ]
        tubes = TubeResult.by_name(results, 'ground_truth')
    if not tubes:
        raise TubeError(f'{path} holds no ground truth')
    return tubes


def _notes(predictions: dict, annotations: list, top_n: int) -> list[str]:
    """What a reader of the figures should know about the file."""
    notes = []
    extra = len(predictions.keys() - {video.video_id for video in annotations})
    if extra:
        notes.append(
            f'{extra} of the {len(predictions)} predicted videos are not annotated, or '
            'without a usable sentence; left out'
        )
    sentences = [one for video in predictions.values() for one in video['sentences'].values()]
    longest = max(len(sentence['moments']) for sentence in sentences)
    if longest < top_n:
        notes.append(
            f'no sentence has more than {longest} moments, so R@{top_n} is no more than R@{longest}'
        )
    return notes


def score_answers(args: argparse.Namespace, metric: GroundingMetric) -> dict:
    """Print the table of answers and warnings; return figures, warnings and unread answers."""
    reader = AnswerReader(args.unit or 'seconds', args.frame_rate, args.num_frames)
    annotations = _usable_annotations(args.annotations)
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
    return _print_figures(metric, results) | answered | listed


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
