"""Score a file of predictions against annotations, without the model.

    python tools/analysis_tools/eval_predictions.py PRED.json ANN.json

PRED.json is what ``tools/test.py --dump PRED.json`` writes, or any file of that format
(docs/predictions.md); ANN.json is in the published annotation format. The same rules drop and clamp
annotations, and the same functions compute the figures, as in the evaluation loop.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mmn_plugin  # noqa: F401
from mmn_plugin.evaluation import (
    GroundingMetric,
    format_table,
    match_predictions,
    read_predictions,
)
from mmn_plugin.files import writable_file, write_json
from mmn_plugin.structures.annotations import read_annotations


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], epilog='Figures are in percent.'
    )
    parser.add_argument('predictions', help='file of predictions (.json)')
    parser.add_argument('annotations', help='annotation file in the published format (.json)')
    parser.add_argument('--top-n', type=int, nargs='+', default=[1, 5], help='n of R@n (1 5)')
    parser.add_argument(
        '--iou', type=float, nargs='+', default=[0.3, 0.5, 0.7], help='m of IoU=m (0.3 0.5 0.7)'
    )
    parser.add_argument(
        '--duration-buckets',
        type=float,
        nargs='*',
        default=[10, 30],
        help='edges between groups by length of the moment (10 30)',
    )
    parser.add_argument(
        '--duration-unit',
        choices=['seconds', 'share'],
        default='seconds',
        help='unit of the edges; share: of the video (seconds)',
    )
    parser.add_argument(
        '--subsets',
        help='JSON file {name: {video id: [sentence index, ...]}} of groups to report apart',
    )
    chance = parser.add_argument_group('chance level (a random ranking after NMS)')
    chance.add_argument('--chance-clips', type=int, metavar='N', help='num_clips of the grid')
    chance.add_argument(
        '--chance-counts', type=int, nargs='+', metavar='C', help='pooling_counts of the grid'
    )
    chance.add_argument('--chance-nms', type=float, metavar='IOU', help='threshold of NMS')
    chance.add_argument('--chance-seed', type=int, default=0, help='of the random rankings (0)')
    parser.add_argument(
        '--json', dest='out', type=writable_file, help='also write the figures to this file'
    )
    args = parser.parse_args(argv)
    given = [args.chance_clips, args.chance_counts, args.chance_nms]
    if any(value is not None for value in given) and None in given:
        parser.error('the chance level needs --chance-clips, --chance-counts and --chance-nms')
    return args


def score(args: argparse.Namespace) -> dict[str, float]:
    """Score the file, print the table, and return the figures under the metric's names."""
    chance = None
    if args.chance_clips is not None:
        chance = dict(
            num_clips=args.chance_clips,
            pooling_counts=args.chance_counts,
            iou_threshold=args.chance_nms,
            seed=args.chance_seed,
        )
    metric = GroundingMetric(
        args.top_n, args.iou, args.duration_buckets, args.duration_unit, args.subsets, chance
    )
    predictions = read_predictions(args.predictions)
    annotations = read_annotations(args.annotations)
    results = match_predictions(predictions, annotations, max(args.top_n))
    for note in _notes(predictions, annotations, max(args.top_n)):
        print(f'note: {note}', file=sys.stderr)
    rows = metric.summarize(results)
    print(f'{len(results)} videos; figures in percent\n{format_table(rows)}')
    metrics = metric.flatten(rows) | {'num_videos': len(results)}
    return {f'grounding/{name}': value for name, value in metrics.items()}


def _notes(predictions: dict, annotations: list, top_n: int) -> list[str]:
    """What a reader of the figures should know about the file."""
    notes = []
    extra = len(predictions.keys() - {video.video_id for video in annotations})
    if extra:
        notes.append(
            f'{extra} of the {len(predictions)} predicted videos are not annotated, or '
            'without a usable sentence; left out'
        )
    longest = max(
        len(sentence['moments'])
        for video in predictions.values()
        for sentence in video['sentences'].values()
    )
    if longest < top_n:
        notes.append(
            f'no sentence has more than {longest} moments, so R@{top_n} is no more than R@{longest}'
        )
    return notes


def main(argv: list[str] | None = None) -> int:
    """Run the tool; 1 if the files cannot be scored, else 0."""
    args = parse_args(argv)
    try:
        metrics = score(args)
    except (OSError, ValueError) as error:
        print(f'Error: {args.predictions} against {args.annotations}: {error}', file=sys.stderr)
        return 1
    if args.out:
        write_json(metrics, args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
