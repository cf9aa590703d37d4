"""Find the moments of a video that sentences describe.

    python tools/ground.py VIDEO "a red circle grows" "it blinks" --checkpoint CKPT --out DIR

Prints a table. With --out also writes DIR/VIDEO.json (docs/predictions.md), DIR/VIDEO.vtt (the best
moment of each sentence, as chapters that a player opens), pictures (DIR/VIDEO_timeline.png, and
DIR/VIDEO_map.png of the first sentence), and with --clips the moments as videos (DIR/VIDEO_1_1.mp4:
sentence, rank). A sentence that does not occur has no moments where the checkpoint knows a
threshold, or --threshold gives one. With --annotations the ground truth is shown too, and without
sentences the video's own are taken. What was written is listed in DIR/.mmn_outputs.json; nothing
else is replaced, and another video of the same name gets VIDEO-2.
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
from mmn_plugin.config import load_config
from mmn_plugin.errors import InputError, plain_errors
from mmn_plugin.evaluation import GroundingResult
from mmn_plugin.evaluation import write_predictions
from mmn_plugin.features import cut_clip
from mmn_plugin.features import webvtt
from mmn_plugin.files import OutputFolder
from mmn_plugin.files import input_of
from mmn_plugin.files import printable
from mmn_plugin.files import text_argument
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.timeline import TimelineRow


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('video', help='video file, or features FILE.h5::ENTRY')
    parser.add_argument('sentences', nargs='*', type=text_argument, help='what to look for')
    parser.add_argument(
        '--config', help="a config, or a name of model-index.yml (default: the checkpoint's own)"
    )
    parser.add_argument(
        '--checkpoint',
        required=True,
        help='trained model: a checkpoint (.pth) or a folder of save_pretrained',
    )
    parser.add_argument(
        '--annotations',
        metavar='ANN.json',
        help='annotation file with the ground truth of the video',
    )
    parser.add_argument('--out', type=OutputFolder, help='folder for the files')
    parser.add_argument(
        '--clips',
        type=int,
        default=0,
        metavar='N',
        help='write the N best moments of each sentence as videos (default: none)',
    )
    parser.add_argument(
        '--threshold',
        type=float,
        help='presence below which a sentence does not occur, however long the '
        "video (default: the model's own; -1 turns it off)",
    )
    parser.add_argument(
        '--duration', type=float, help='seconds of the video; of use with features alone'
    )
    parser.add_argument('--top-n', type=int, default=5, help='moments per sentence (default: 5)')
    parser.add_argument(
        '--max-sentences',
        type=int,
        default=3,
        help="at most so many of the video's own sentences (default: 3)",
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, key=value',
    )
    # options may stand between the sentences and after them
    return parser.parse_intermixed_args(argv)


def find_annotation(path, video):
    """The annotation of a video, by its file's name with or without suffix, or None."""
    names = (printable(Path(video).name), video_name(video))
    return next((entry for entry in read_annotations(path) if entry.video_id in names), None)


def video_name(video):
    """Name of a video file without suffix, or of an entry of features."""
    return video.partition('::')[2].replace('/', '_') or printable(Path(video).stem)


def choose_sentences(args):
    """What to look for: [(sentence, its place in the annotations or None, truth or None)].

    Raises:
        ValueError: there is nothing to look for.
    """
    entry = find_annotation(args.annotations, args.video) if args.annotations else None
    own = (
        []
        if entry is None
        else list(zip(entry.sentences, entry.sentence_index, entry.moments, strict=True))
    )
    if args.sentences:
        known = {sentence: (sentence, index, truth) for sentence, index, truth in reversed(own)}
        return [known.get(sentence, (sentence, None, None)) for sentence in args.sentences]
    if not args.annotations:
        raise InputError('give a sentence, or --annotations with the sentences of the video')
    if not own:
        raise InputError(
            f'{args.annotations} has no video {video_name(args.video)!r}: give '
            'sentences, or the file that has it'
        )
    return own[: max(args.max_sentences, 1)]


def ground(inferencer, encoded, chosen, top_n):
    """Data sample with the predictions and, where known, the ground truth."""
    sample = inferencer.predict(encoded, [sentence for sentence, _, _ in chosen], top_n)
    truth = [[torch.nan] * 2 if moment is None else moment for _, _, moment in chosen]
    sample.gt_instances = InstanceData(moments=torch.tensor(truth, dtype=torch.float32))
    threshold = inferencer.threshold_of(sample)
    if threshold is not None:
        found = sample.pred_instances
        absent = found.presence < threshold  # (s,)
        found.moments = found.moments.masked_fill(absent[:, None, None], torch.nan)
        found.scores = found.scores.masked_fill(absent[:, None], torch.nan)
    return sample


def print_table(sample, top_n):
    """One line per sentence and rank."""
    rows = TimelineRow.from_sample(sample, top_n)
    with_truth = any(row.truth is not None for row in rows)
    table = Table(title=escape(f'{sample.video_id}, {sample.duration:.1f} s'), title_justify='left')
    table.add_column('sentence')
    for name in ('rank', 'start - end (s)', 'score', *(['IoU'] if with_truth else [])):
        table.add_column(name, justify='right', no_wrap=True)
    for row, presence in zip(rows, sample.pred_instances.presence.tolist(), strict=True):
        overlaps = row.iou()
        if row.truth is not None:
            table.add_row(escape(row.sentence), 'truth', '{:.2f} - {:.2f}'.format(*row.truth))
        if not len(row.moments):
            table.add_row(
                escape(row.sentence) if row.truth is None else '',
                '',
                'no such moment',
                f'({presence:.3f})',
            )
        for i, ((start, end), score) in enumerate(zip(row.moments, row.scores, strict=True)):
            first = i == 0 and row.truth is None
            cells = [
                escape(row.sentence) if first else '',
                str(i + 1),
                f'{start:.2f} - {end:.2f}',
                f'{score:.3f}',
            ]
            table.add_row(*cells, *([] if overlaps is None else [f'{overlaps[i]:.2f}']))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def claim_outputs(args, chosen):
    """What the files' names begin with, and which may be written, as `OutputFolder` takes it.

    Raises:
        OutputError: there are files of these names that are not from this video.
    """
    source = input_of(args.video)
    (name,) = args.out.names_of([(source, video_name(args.video))])
    clips = [
        f'_{i}_{rank}.mp4' for i in range(1, len(chosen) + 1) for rank in range(1, args.clips + 1)
    ]
    files = {
        f'{name}{end}': source for end in ('.json', '.vtt', '_timeline.png', '_map.png', *clips)
    }
    args.out.claim(files)
    return name, files


def write_outputs(args, name, inferencer, encoded, sample, chosen):
    """Write all files; returns their paths."""
    out = args.out.path
    paths = [
        *write_pictures(args, name, inferencer, encoded, sample),
        out / f'{name}.json',
        out / f'{name}.vtt',
    ]
    # sentences that are not annotated are numbered after those that may be
    indices = [index for _, index, _ in chosen]
    free = max((index for index in indices if index is not None), default=-1) + 1
    for i, index in enumerate(indices):
        if index is None or index in indices[:i]:
            indices[i], free = free, free + 1
    write_predictions(
        paths[-2],
        [
            GroundingResult(
                sample.video_id,
                sample.duration,
                indices,
                sample.sentences,
                sample.gt_instances.moments,
                sample.pred_instances.moments,
                sample.pred_instances.scores,
            )
        ],
    )
    rows = TimelineRow.from_sample(sample, max(args.clips, 1))
    paths[-1].write_text(
        webvtt((*row.moments[0].tolist(), row.sentence) for row in rows if len(row.moments)),
        encoding='utf-8',
    )
    if '::' not in args.video:
        for i, row in enumerate(rows, 1):
            for rank, (start, end) in enumerate(row.moments[: args.clips].tolist(), 1):
                paths.append(out / f'{name}_{i}_{rank}.mp4')
                cut_clip(args.video, start, end, paths[-1])
    return paths


def write_pictures(args, name, inferencer, encoded, sample):
    """Timeline and, of a video that was looked at whole, moment map; returns their paths."""
    paths, visualizer = [args.out.path / f'{name}_timeline.png'], GroundingVisualizer()
    frames = None if '::' in args.video else args.video
    visualizer.add_datasample(
        name,
        frames,
        sample,
        top_n=args.top_n,
        out_path=paths[0],
        curves=inferencer.curves(encoded, sample.sentences),
    )
    grid = inferencer.moment_map(encoded)
    if grid is not None:
        paths.append(args.out.path / f'{name}_map.png')
        scores = inferencer.score_moments(encoded, sample.sentences[0])[0]  # (P,)
        visualizer.save_image(
            visualizer.draw_moment_map(
                grid,
                scores,
                sample.gt_instances.moments[0],
                sample.pred_instances.moments[0],
                duration=sample.duration,
                title=f'“{sample.sentences[0]}”',
            ),
            paths[1],
        )
    return paths


def answer(args, chosen):
    """Encoded video, data sample, and the inferencer that made them."""
    config = args.config
    if args.cfg_options:
        if config is None:
            raise InputError('--cfg-options needs --config')
        config = load_config(config, args.cfg_options)
    inferencer = GroundingInferencer(
        config, args.checkpoint, args.device, presence_threshold=args.threshold
    )
    encoded = inferencer.encode(args.video, args.duration, video_name(args.video))
    if encoded.num_windows > 1:
        print(f'looked at in {encoded.num_windows} overlapping windows')
    return encoded, ground(inferencer, encoded, chosen, args.top_n), inferencer


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with plain_errors():
        if args.top_n < 1:
            raise InputError(f'--top-n {args.top_n}: it must be at least 1')
        if args.clips < 0 or (args.clips and not args.out):
            raise InputError(f'--clips {args.clips}: give a number of clips, and --out for them')
        chosen = choose_sentences(args)
        name, files = claim_outputs(args, chosen) if args.out else (None, {})
        encoded, sample, inferencer = answer(args, chosen)
        print_table(sample, args.top_n)
        if args.out:
            with args.out.writing(files):
                paths = write_outputs(args, name, inferencer, encoded, sample, chosen)
            for path in paths:
                print(path)


if __name__ == '__main__':
    main()
