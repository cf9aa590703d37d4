"""Find the moments of a video that sentences describe.

    python tools/ground.py VIDEO "a red circle grows" --config CONFIG --checkpoint CKPT --out DIR

Prints a table. With --out also writes pictures (DIR/VIDEO_timeline.png, DIR/VIDEO_map.png of the
first sentence) and DIR/VIDEO.json (docs/predictions.md). With --annotations the ground truth is
shown too, and without sentences the video's own are taken.
"""
import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec('mmn_plugin') is None:  # a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mmn_plugin  # noqa: F401, I001  first, since it makes the rest importable
import torch
from mmengine.config import DictAction
from mmengine.structures import InstanceData
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.engine.runner import load_config, plain_errors
from mmn_plugin.evaluation import GroundingResult, write_predictions
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.timeline_row import TimelineRow


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('video', help='video file')
    parser.add_argument('sentences', nargs='*', help='what to look for')
    parser.add_argument('--config', required=True,
                        help='path of a config, or the name of one of mmn_plugin')
    parser.add_argument('--checkpoint', required=True, help='checkpoint trained with it (.pth)')
    parser.add_argument('--annotations', metavar='ANN.json',
                        help='annotation file with the ground truth of the video')
    parser.add_argument('--out', help='folder for the pictures and the JSON file')
    parser.add_argument('--top-n', type=int, default=5, help='moments per sentence (default: 5)')
    parser.add_argument('--max-sentences', type=int, default=3,
                        help="at most so many of the video's own sentences (default: 3)")
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings of the config, key=value')
    # options may stand between the sentences and after them
    return parser.parse_intermixed_args(argv)


def find_annotation(path, video):
    """The annotation of a video, by its file's name with or without suffix, or None."""
    names = (Path(video).name, Path(video).stem)
    return next((entry for entry in read_annotations(path) if entry.video_id in names), None)


def choose_sentences(args):
    """What to look for: [(sentence, its place in the annotations or None, truth or None)].

    Raises:
        ValueError: there is nothing to look for.
    """
    entry = find_annotation(args.annotations, args.video) if args.annotations else None
    own = [] if entry is None else list(
        zip(entry.sentences, entry.sentence_index, entry.moments, strict=True))
    if args.sentences:
        known = {sentence: (sentence, index, truth) for sentence, index, truth in reversed(own)}
        return [known.get(sentence, (sentence, None, None)) for sentence in args.sentences]
    if not args.annotations:
        raise ValueError('give a sentence, or --annotations with the sentences of the video')
    if not own:
        raise ValueError(f'{args.annotations} has no video {Path(args.video).stem!r}: give '
                         'sentences, or the file that has it')
    return own[:max(args.max_sentences, 1)]


def ground(inferencer, encoded, chosen):
    """Data sample with the predictions and, where known, the ground truth."""
    sample = inferencer.predict(encoded, [sentence for sentence, _, _ in chosen])
    truth = [[torch.nan] * 2 if moment is None else moment for _, _, moment in chosen]
    sample.gt_instances = InstanceData(moments=torch.tensor(truth, dtype=torch.float32))
    return sample


def print_table(sample, top_n):
    """One line per sentence and rank."""
    rows = TimelineRow.from_sample(sample, top_n)
    with_truth = any(row.truth is not None for row in rows)
    table = Table(title=escape(f'{sample.video_id}, {sample.duration:.1f} s'),
                  title_justify='left')
    table.add_column('sentence')
    for name in ('rank', 'start - end (s)', 'score', *(['IoU'] if with_truth else [])):
        table.add_column(name, justify='right', no_wrap=True)
    for row in rows:
        overlaps = row.iou()
        if row.truth is not None:
            table.add_row(escape(row.sentence), 'truth', '{:.2f} - {:.2f}'.format(*row.truth))
        for i, ((start, end), score) in enumerate(zip(row.moments, row.scores, strict=True)):
            first = i == 0 and row.truth is None
            cells = [escape(row.sentence) if first else '', str(i + 1), f'{start:.2f} - {end:.2f}',
                     f'{score:.3f}']
            table.add_row(*cells, *([] if overlaps is None else [f'{overlaps[i]:.2f}']))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def write_outputs(args, inferencer, encoded, sample, chosen):
    """Write pictures and JSON; returns the paths."""
    out, name = Path(args.out), Path(args.video).stem
    paths = [out / f'{name}_timeline.png', out / f'{name}_map.png', out / f'{name}.json']
    visualizer = GroundingVisualizer()
    visualizer.add_datasample(name, args.video, sample, top_n=args.top_n, out_path=paths[0])
    scores = inferencer.score_moments(encoded, chosen[0][0])[0]  # (P,)
    visualizer.save_image(
        visualizer.draw_moment_map(
            inferencer.model.grid, scores, sample.gt_instances.moments[0],
            sample.pred_instances.moments[0], duration=sample.duration,
            title=f'“{chosen[0][0]}”'), paths[1])
    # sentences that are not annotated are numbered after those that may be
    indices = [index for _, index, _ in chosen]
    free = max((index for index in indices if index is not None), default=-1) + 1
    for i, index in enumerate(indices):
        if index is None or index in indices[:i]:
            indices[i], free = free, free + 1
    write_predictions(paths[2], [GroundingResult(
        sample.video_id, sample.duration, indices, sample.sentences, sample.gt_instances.moments,
        sample.pred_instances.moments, sample.pred_instances.scores)])
    return paths


def require_folder(path):
    """Make the folder for the files, before anything costs time.

    Raises:
        ValueError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f'--out {path} is not a folder and cannot be made: '
                         f'{error.strerror}') from None


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with plain_errors():
        if args.top_n < 1:
            raise ValueError(f'--top-n {args.top_n}: it must be at least 1')
        chosen = choose_sentences(args)
        if args.out:
            require_folder(args.out)
        inferencer = GroundingInferencer(
            load_config(args.config, args.cfg_options), args.checkpoint, args.device, args.top_n)
        encoded = inferencer.encode(args.video)
        sample = ground(inferencer, encoded, chosen)
        print_table(sample, args.top_n)
        if args.out:
            for path in write_outputs(args, inferencer, encoded, sample, chosen):
                print(path)


if __name__ == '__main__':
    main()
