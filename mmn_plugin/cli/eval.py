"""Score a file of predictions against annotations, without a model.

    mmn eval PRED.json ANN.json        # moments
    mmn eval ANSWERS.json TRUTH        # tubes

PRED.json is what ``tools/test.py --dump PRED.json`` writes, or any file of that format
(docs/predictions.md); ANN.json is in the published annotation format. The same rules drop and clamp
annotations, and the same functions compute the figures, as in the evaluation loop.

ANSWERS.json is what ``tools/test.py --submission`` writes, in the format of the HC-STVG challenge;
TRUTH is the dataset's annotation JSON, or a tube file (.h5). A video without an answer counts as 0;
impossible answers (a frame twice, a box that ends before it begins, ...) are refused by name.

Figures are in percent.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import mmn_plugin
from mmn_plugin.cli.main import Parser
from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    GroundingMetric,
    TubeResult,
    format_table,
    match_predictions,
    read_predictions,
    read_submission,
    score_submission,
)
from mmn_plugin.structures.annotations import read_annotations


def parse_eval(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('eval', __doc__)
    add = parser.add_argument
    add('predictions', help='file of predictions or answers (.json)')
    add('annotations', type=Path, help='annotation file (.json), of tubes also a tube file (.h5)')
    text = 'thresholds: m of IoU=m (0.3 0.5 0.7), of tubes R of vIoU@R (0.3 0.5)'
    add('--iou', type=float, nargs='+', help=text)
    add = parser.add_argument_group('moments').add_argument
    add('--top-n', type=int, nargs='+', default=[1, 5], help='n of R@n (1 5)')
    text = 'edges between groups by length of the moment (10 30)'
    add('--duration-buckets', type=float, nargs='*', default=[10, 30], help=text)
    text = 'unit of the edges; share: of the video (seconds)'
    add('--duration-unit', choices=['seconds', 'share'], default='seconds', help=text)
    text = 'JSON file {name: {video id: [sentence index, ...]}} of groups to report apart'
    add('--subsets', help=text)
    add = parser.add_argument_group('chance level (a random ranking after NMS)').add_argument
    add('--chance-clips', type=int, metavar='N', help='num_clips of the grid')
    add('--chance-counts', type=int, nargs='+', metavar='C', help='pooling_counts of the grid')
    add('--chance-nms', type=float, metavar='IOU', help='threshold of NMS')
    add('--chance-seed', type=int, default=0, help='of the random rankings (0)')
    args = parser.parse_args(argv)
    given = [args.chance_clips, args.chance_counts, args.chance_nms]
    if any(value is not None for value in given) and None in given:
        parser.error('the chance level needs --chance-clips, --chance-counts and --chance-nms')
    return args


def run_eval(args: argparse.Namespace, answer: Callable) -> int:
    """Score and print; returns the exit code."""
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
    if not Path(args.predictions).is_file():
        return False
    with open(args.predictions, encoding='utf-8', errors='replace') as file:
        return any(key in file.read(4096) for key in ('"st_frame"', '"bbox"'))


def score_moments(args: argparse.Namespace) -> dict[str, float]:
    """Print the table of moments, and return the figures under the metric's names."""
    chance = None
    if args.chance_clips is not None:
        mmn_plugin.register_components()  # NMS is a part of the models
        names = ('num_clips', 'pooling_counts', 'iou_threshold', 'seed')
        values = (args.chance_clips, args.chance_counts, args.chance_nms, args.chance_seed)
        chance = dict(zip(names, values, strict=True))
    metric = GroundingMetric(
        args.top_n,
        args.iou or [0.3, 0.5, 0.7],
        args.duration_buckets,
        args.duration_unit,
        args.subsets,
        chance,
    )
    predictions = read_predictions(args.predictions)
    annotations = read_annotations(args.annotations)
    with _naming_both(args):
        results = match_predictions(predictions, annotations, max(args.top_n))
    for note in _notes(predictions, annotations, max(args.top_n)):
        print(f'note: {note}', file=sys.stderr)
    rows = metric.summarize(results)
    print(f'{len(results)} videos; figures in percent\n{format_table(rows)}')
    metrics = metric.flatten(rows) | {'num_videos': len(results)}
    return {f'grounding/{name}': value for name, value in metrics.items()}


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
