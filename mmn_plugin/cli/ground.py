"""Find the moments, or tubes, of a video that sentences describe.

    mmn ground VIDEO "a red circle grows" "it blinks" --checkpoint CKPT --out DIR
    mmn ground VIDEO "a red circle grows" --config mmn_shapes_tubes.py --checkpoint CKPT --out DIR

Prints a table. With --out also writes DIR/VIDEO.json (docs/predictions.md), DIR/VIDEO.vtt (the best
moment of each sentence, as chapters that a player opens), pictures (DIR/VIDEO_timeline.png, and
DIR/VIDEO_map.png of the first sentence), and with --clips the moments as videos (DIR/VIDEO_1_1.mp4:
sentence, rank). A sentence that does not occur has no moments where the checkpoint knows a
threshold, or --threshold gives one. With --annotations the ground truth is shown too, and without
sentences the video's own are taken. What was written is listed in DIR/.mmn_outputs.json; nothing
else is replaced, and another video of the same name gets VIDEO-2.

With a config of tubes the answer is a tube: without --tracks the config's tracker finds those of
the video, and --out takes, per sentence, a picture and a video with the box drawn, and
DIR/VIDEO_tubes.json (the format of the HC-STVG challenge, under VIDEO#0, VIDEO#1, ...).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.apis import GroundingInferencer, TubeGroundingInferencer
from mmn_plugin.apis.pretrained import resolve_model
from mmn_plugin.cli.main import Parser, add_config_options, add_device, whole_number
from mmn_plugin.config import load_config
from mmn_plugin.datasets import grounds_tubes, read_tracks
from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    GroundingResult,
    predictions_content,
    write_predictions,
    write_submission,
)
from mmn_plugin.features import cut_clip, webvtt
from mmn_plugin.files import OutputFolder, input_of, printable, text_argument
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.timeline import TimelineRow
from mmn_plugin.visualization.tubes import draw_tube_frames, write_tube_video


def parse_ground(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('ground', __doc__)
    parser.add_argument('video', help='video file, or features FILE.h5::ENTRY')
    parser.add_argument('sentences', nargs='*', type=text_argument, help='what to look for')
    parser.add_argument(
        '--config', help="a config, or a name of model-index.yml (default: the checkpoint's own)"
    )
    parser.add_argument(
        '--checkpoint', help='trained model: a checkpoint (.pth) or a folder of save_pretrained'
    )
    parser.add_argument('--out', type=OutputFolder, help='folder for the files')
    add_device(parser)
    add_config_options(parser)
    moments = parser.add_argument_group('moments')
    moments.add_argument(
        '--annotations',
        metavar='ANN.json',
        help='annotation file with the ground truth of the video',
    )
    moments.add_argument(
        '--max-sentences',
        type=int,
        default=3,
        help="at most so many of the video's own sentences (default: 3)",
    )
    moments.add_argument('--top-n', type=int, default=5, help='moments per sentence (default: 5)')
    moments.add_argument(
        '--clips',
        type=whole_number,
        default=0,
        metavar='N',
        help='with --out: write the N best moments of each sentence as videos (default: none)',
    )
    moments.add_argument(
        '--pad',
        type=float,
        default=0.0,
        metavar='SECONDS',
        help='with --clips: what a video shows before and after its moment (default: 0)',
    )
    moments.add_argument(
        '--threshold',
        type=float,
        help='presence below which a sentence does not occur, however long the '
        "video (default: the model's own; -1 turns it off)",
    )
    moments.add_argument(
        '--duration', type=float, help='seconds of the video; of use with features alone'
    )
    parser.add_argument_group('tubes').add_argument(
        '--tracks',
        metavar='FILE',
        help='tubes of any detector and tracker: JSON {video: [[[frame, x1, y1, '
        'x2, y2], ...], ...]}, or a tube file (.h5)',
    )
    # options may stand between the sentences and after them
    args = parser.parse_intermixed_args(argv)
    if args.top_n < 1:
        parser.error(f'--top-n {args.top_n}: it must be at least 1')
    if args.pad < 0:
        parser.error(f'--pad {args.pad:g}: give seconds of 0 or more')
    if (args.clips and not args.out) or (args.pad and not args.clips):
        parser.error('--pad needs --clips, and --clips needs --out')
    if args.cfg_options and not args.config:
        parser.error('--cfg-options needs --config')
    return args


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


def result_of(sample, chosen) -> GroundingResult:
    """The answers as a file of predictions has them."""
    # sentences that are not annotated are numbered after those that may be
    indices = [index for _, index, _ in chosen]
    free = max((index for index in indices if index is not None), default=-1) + 1
    for i, index in enumerate(indices):
        if index is None or index in indices[:i]:
            indices[i], free = free, free + 1
    return GroundingResult(
        sample.video_id,
        sample.duration,
        indices,
        sample.sentences,
        sample.gt_instances.moments,
        sample.pred_instances.moments,
        sample.pred_instances.scores,
    )


def write_outputs(args, name, inferencer, encoded, sample, result):
    """Write all files; returns their paths."""
    out = args.out.path
    paths = [
        *write_pictures(args, name, inferencer, encoded, sample),
        out / f'{name}.json',
        out / f'{name}.vtt',
    ]
    write_predictions(paths[-2], [result])
    rows = TimelineRow.from_sample(sample, max(args.clips, 1))
    paths[-1].write_text(
        webvtt((*row.moments[0].tolist(), row.sentence) for row in rows if len(row.moments)),
        encoding='utf-8',
    )
    if '::' not in args.video:
        for i, row in enumerate(rows, 1):
            for rank, (start, end) in enumerate(row.moments[: args.clips].tolist(), 1):
                paths.append(out / f'{name}_{i}_{rank}.mp4')
                cut_clip(args.video, max(start - args.pad, 0.0), end + args.pad, paths[-1])
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


def run_ground(args: argparse.Namespace, answer: Callable) -> int:
    """Find moments, or tubes where the config is of tubes; returns the exit code."""
    config = args.config
    if args.cfg_options:
        config = load_config(config, args.cfg_options)
    if config is not None:
        config, args.checkpoint = resolve_model(config, args.checkpoint)
    if config is not None and grounds_tubes(config):
        run_tubes(args, config, answer)
    else:
        run_moments(args, config, answer)
    return 0


def run_moments(args: argparse.Namespace, config: Config | None, answer: Callable) -> None:
    """Print moments, and write what is asked for."""
    chosen = choose_sentences(args)
    name, files = claim_outputs(args, chosen) if args.out else (None, {})
    inferencer = GroundingInferencer(
        config, args.checkpoint, args.device, presence_threshold=args.threshold
    )
    encoded = inferencer.encode(args.video, args.duration, video_name(args.video))
    if encoded.num_windows > 1:
        print(f'looked at in {encoded.num_windows} overlapping windows')
    sample = ground(inferencer, encoded, chosen, args.top_n)
    print_table(sample, args.top_n)
    result = result_of(sample, chosen)
    if args.out:
        with args.out.writing(files):
            paths = write_outputs(args, name, inferencer, encoded, sample, result)
        for path in paths:
            print(path)
    answer(predictions_content([result]))


def run_tubes(args: argparse.Namespace, config: Config, answer: Callable) -> None:
    """Print tubes, and write what is asked for."""
    if not args.sentences:
        raise InputError('give a sentence')
    name, files = claim_tubes(args) if args.out else (None, {})
    inferencer = TubeGroundingInferencer(config, args.checkpoint, args.device)
    tubes = None
    if args.tracks:
        tubes = read_tracks(args.tracks, Path(args.video).name, inferencer.streams)
    answers = inferencer(args.video, args.sentences, tubes)
    for found in answers:
        if found['span'] is None:
            print(f'{found["sentence"]}: there is no tube in this video')
            continue
        start, end = found['span']
        box = ', '.join(f'{value:.0f}' for value in found['tube'][0, 1:])
        print(
            f'{found["sentence"]}: tube {found["tube_index"]}, {start:.2f} - {end:.2f} s, '
            f'first box [{box}], score {found["score"]:.3f}'
        )
    if args.out:
        with args.out.writing(files):
            write_tubes(args, name, answers)
    answer([found | dict(tube=found['tube'].tolist()) for found in answers])


def claim_tubes(args: argparse.Namespace) -> tuple[str, dict]:
    """What the files' names begin with, and which may be written; see `OutputFolder`."""
    source = input_of(args.video)
    (name,) = args.out.names_of([(source, printable(Path(args.video).stem))])
    ends = [f'_{i}.{kind}' for i in range(len(args.sentences)) for kind in ('png', 'mp4')]
    files = {f'{name}{end}': source for end in (*ends, '_tubes.json')}
    args.out.claim(files)
    return name, files


def write_tubes(args: argparse.Namespace, name: str, answers: list[dict]) -> None:
    """Pictures, videos and JSON of the answers."""
    from PIL import Image

    out, stem = args.out.path, Path(args.video).stem
    for i, found in enumerate(answers):
        picture = draw_tube_frames(args.video, found['sentence'], found['tube'])
        Image.fromarray(picture).save(out / f'{name}_{i}.png')
        write_tube_video(args.video, out / f'{name}_{i}.mp4', found['sentence'], found['tube'])
    write_submission(
        out / f'{name}_tubes.json',
        {f'{stem}#{i}': found['tube'] for i, found in enumerate(answers)},
    )
    print(f'written to {out}')
