"""Find the moments, or tubes, of a video that sentences describe.

    mmn ground VIDEO "a person opens the door" --model zero_shot_siglip2 --out DIR
    mmn ground VIDEO "a red circle grows" "it blinks" --checkpoint CKPT --out DIR
    mmn ground VIDEO "a red circle grows" --model mmn_shapes_tubes --checkpoint CKPT --out DIR

A model that needs no training is used by its name; its tower comes from the Hugging Face hub, or
without a network from --model-root.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.apis import Candidate, GroundingInferencer, TubeGroundingInferencer
from mmn_plugin.apis.pretrained import resolve_model
from mmn_plugin.apis.video_input import is_entry, video_name
from mmn_plugin.cli.main import (
    Parser,
    add_model,
    chosen_config,
    warn_of_unknown_words,
    whole_number,
)
from mmn_plugin.datasets import grounds_tubes, read_tracks
from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    GroundingResult,
    predictions_content,
    write_predictions,
    write_submission,
)
from mmn_plugin.features import webvtt
from mmn_plugin.files import OutputFolder, input_of, printable, text_argument
from mmn_plugin.hub import with_model_root
from mmn_plugin.structures import GroundingDataSample, MomentGrid, true_windows
from mmn_plugin.structures.annotations import read_annotations
from mmn_plugin.visualization import GroundingVisualizer
from mmn_plugin.visualization.timeline import TimelineRow
from mmn_plugin.visualization.tubes import draw_tube_frames, write_tube_video


def parse_ground(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('ground', __doc__)
    add = parser.add_argument
    add('video', help='video file, or features FILE.h5::ENTRY')
    add('sentences', nargs='*', type=text_argument, help='what to look for')
    add('--checkpoint', help='trained model: a .pth file or a folder of save_pretrained')
    add_model(parser)
    add('--out', type=OutputFolder, help='folder for the files')
    add = parser.add_argument_group('moments').add_argument
    add('--annotations', metavar='ANN.json', help='annotation file with the ground truth')
    add('--max-sentences', type=int, default=3, help="of the video's own at most (default: 3)")
    text = 'with --out: write the N best moments of each sentence as videos (default: none)'
    add('--clips', type=whole_number, default=0, metavar='N', help=text)
    text = 'with --clips: what a video shows before and after its moment (default: 0)'
    add('--pad', type=float, default=0.0, metavar='SECONDS', help=text)
    text = "presence below which a sentence does not occur (default: the model's; -1: none)"
    add('--threshold', type=float, help=text)
    add('--duration', type=float, help='seconds of the video; of use with features alone')
    text = (
        'tubes of any detector and tracker: JSON {video: [[[frame, x1, y1, x2, y2], ...], ...]}, '
        'or a tube file (.h5)'
    )
    parser.add_argument_group('tubes').add_argument('--tracks', metavar='FILE', help=text)
    args = parser.parse_intermixed_args(argv)  # options may stand between the sentences
    if not 0 <= args.pad < float('inf'):
        parser.error(f'--pad {args.pad:g}: give seconds of 0 or more')
    if args.threshold is not None and not -1 <= args.threshold <= 1:
        parser.error(f'--threshold {args.threshold:g}: give a presence from -1 (none) to 1')
    if (args.clips and not args.out) or (args.pad and not args.clips):
        parser.error('--pad needs --clips, and --clips needs --out')
    if args.clips and is_entry(args.video):
        parser.error(f'--clips are cut out of a video file, and {args.video} is features')
    return args


def run_ground(args: argparse.Namespace, answer: Callable) -> int:
    """Find moments, or tubes where the config is of tubes; returns the exit code."""
    config = chosen_config(args)
    if config is not None:
        config, args.checkpoint = resolve_model(config, args.checkpoint)
    if config is not None and grounds_tubes(config):
        config = with_model_root(config, args.model_root)
        answer(ground_tubes(args, config))
    else:
        answer(ground_moments(args, config))
    return 0


class Outputs:
    """The files of one video in ``--out``.

    Args:
        folder (OutputFolder): The folder.
        video (str): As on the command line.
        name (str): What the files' names begin with, where no other video has it.
        ends (list[str]): The rest of the names.

    Raises:
        OutputError: There are files of these names that are not from this video.
    """

    def __init__(self, folder: OutputFolder, video: str, name: str, ends: list[str]) -> None:
        self.folder, self.source, self.name, self.ends = folder, input_of(video), name, ends
        folder.claim(self._files(keep=False))

    def _files(self, keep: bool) -> dict[str, str]:
        (name,) = self.folder.names_of([(self.source, self.name)], keep)
        return {f'{name}{end}': self.source for end in self.ends}

    @contextmanager
    def writing(self) -> Iterator[Callable[[str], Path]]:
        """Give what tells where the file of an end is written; at the end print all that were."""
        files, paths = self._files(keep=True), []

        def path(end: str) -> Path:
            paths.append(self.folder.path / list(files)[self.ends.index(end)])
            return paths[-1]

        with self.folder.writing(files):
            yield path
        print(*paths, sep='\n')


def ground_moments(args: argparse.Namespace, config: Config | None) -> dict:
    """Print moments, write what is asked for, and return the content of a file of predictions."""
    sentences, indices, truth = choose_sentences(args)
    name, outputs = video_name(args.video), None
    if args.out:
        pairs = [(i, rank) for i in range(len(sentences)) for rank in range(args.clips)]
        clips = [f'_{i + 1}_{rank + 1}.mp4' for i, rank in pairs]
        ends = ['_timeline.png', '_map.png', '.json', '.vtt', *clips]
        outputs = Outputs(args.out, args.video, name, ends)
    inferencer = GroundingInferencer(
        config,
        args.checkpoint,
        args.device,
        presence_threshold=args.threshold,
        model_root=args.model_root,
    )
    inferencer.check_sentences(sentences)  # before the video costs time
    warn_of_unknown_words(inferencer.model, sentences)
    encoded = inferencer.encode(args.video, args.duration, name)
    if encoded.num_windows > 1:
        print(f'looked at in {encoded.num_windows} overlapping windows')
    top_n = max(args.top_n, args.clips)
    sample = inferencer.predict(encoded, sentences, top_n, whole=outputs is not None)
    sample.set_metainfo(dict(sentence_index=indices))
    sample.gt_instances = true_windows(truth)
    found, threshold = sample.pred_instances, inferencer.threshold_of(sample)
    if threshold is not None:
        absent = found.presence < threshold  # (s,)
        found.moments = found.moments.masked_fill(absent[:, None, None], torch.nan)
        found.scores = found.scores.masked_fill(absent[:, None], torch.nan)
    print_table(sample, args.top_n)
    result = GroundingResult.from_data_sample(sample.to_dict())
    if outputs:
        with outputs.writing() as path:
            draw_pictures(args, path, sample, inferencer.moment_map(encoded))
            write_chapters(path('.vtt'), sample)
            if args.clips:
                result.clips = write_clips(args, path, sample)
            write_predictions(path('.json'), [result])
    return predictions_content([result])


def choose_sentences(args: argparse.Namespace) -> tuple[list[str], list[int], list]:
    """Sentences, their numbers as of the annotations, and their windows, [[NaN, NaN]] if unknown.

    Sentences that are not annotated are numbered after those that may be.

    Raises:
        InputError: If there is nothing to look for.
    """
    own = []
    if args.annotations:
        names = (printable(Path(args.video).name), video_name(args.video))
        for entry in read_annotations(args.annotations):
            if entry.video_id in names:
                own = list(zip(entry.sentences, entry.sentence_index, entry.windows, strict=True))
                break
    if args.sentences:
        known = {sentence: (index, truth) for sentence, index, truth in reversed(own)}
        used, free = set(), count(1 + max((index for index, _ in known.values()), default=-1))
        chosen = []
        for sentence in args.sentences:
            index, truth = known.get(sentence, (None, [[torch.nan] * 2]))
            index = next(free) if index is None or index in used else index
            used.add(index)
            chosen.append((sentence, index, truth))
    elif own:
        chosen = own[: max(args.max_sentences, 1)]
        if len(chosen) < len(own):
            print(f'{len(chosen)} of {len(own)} annotated sentences (--max-sentences)')
    elif args.annotations:
        raise InputError(
            f'{args.annotations} has no video {video_name(args.video)!r}: give '
            'sentences, or the file that has it'
        )
    else:
        raise InputError('give a sentence, or --annotations with the sentences of the video')
    return tuple(map(list, zip(*chosen, strict=True)))


def print_table(sample: GroundingDataSample, top_n: int) -> None:
    """One line per sentence and rank."""
    rows = TimelineRow.from_sample(sample, top_n)
    with_truth = any(row.iou() is not None for row in rows)
    table = Table(title=escape(f'{sample.video_id}, {sample.duration:.1f} s'), title_justify='left')
    table.add_column('sentence')
    for name in ('rank', 'start - end (s)', 'score', *(['IoU'] if with_truth else [])):
        table.add_column(name, justify='right', no_wrap=True)
    for row, presence in zip(rows, sample.pred_instances.presence.tolist(), strict=True):
        overlaps, name = row.iou(), escape(row.sentence)
        for words in _truth(row):
            table.add_row(name, 'truth', words)
            name = ''
        if row.rejected:
            table.add_row(name, '', 'probably not in this video', f'presence {presence:.3f}')
        for i, ((start, end), score) in enumerate(zip(row.moments, row.scores, strict=True)):
            iou = [] if overlaps is None else [f'{overlaps[i]:.2f}']
            table.add_row(name, str(i + 1), f'{start:.2f} - {end:.2f}', f'{score:.3f}', *iou)
            name = ''
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 110).print(table)


def _truth(row: TimelineRow) -> list[str]:
    """A line for each true window, or one that says that there is none."""
    if row.truth is None:
        return []
    windows = ['{:.2f} - {:.2f}'.format(*window) for window in row.truth]
    return windows or ['does not occur']


def draw_pictures(
    args: argparse.Namespace,
    path: Callable[[str], Path],
    sample: GroundingDataSample,
    grid: MomentGrid | None,
) -> None:
    """Draw the timeline and, of a video that was looked at whole, the first sentence's map."""
    visualizer = GroundingVisualizer()
    visualizer.add_datasample(
        sample.video_id,
        None if is_entry(args.video) else args.video,
        sample,
        top_n=args.top_n,
        out_path=path('_timeline.png'),
        curves=sample.pred_instances.curves,
    )
    if grid is not None:
        picture = visualizer.draw_moment_map(
            grid,
            sample.pred_instances.unit_scores[0],  # (P,)
            sample.windows[0],
            sample.pred_instances.moments[0],
            duration=sample.duration,
            title=f'“{sample.sentences[0]}”',
        )
        visualizer.save_image(picture, path('_map.png'))


def write_chapters(path: Path, sample: GroundingDataSample) -> None:
    """Write the best moment of each sentence as a chapter."""
    rows = TimelineRow.from_sample(sample, 1)
    best = [(*row.moments[0].tolist(), row.sentence) for row in rows if len(row.moments)]
    path.write_text(webvtt(best), encoding='utf-8')


def write_clips(
    args: argparse.Namespace, path: Callable[[str], Path], sample: GroundingDataSample
) -> list[list[dict]]:
    """Write the clips that are asked for; `GroundingResult.clips`."""
    clips = []
    for i, row in enumerate(TimelineRow.from_sample(sample, args.clips), 1):
        clips.append([])
        for rank, moment in enumerate(row.moments.tolist(), 1):
            clip = path(f'_{i}_{rank}.mp4')
            score = row.scores[rank - 1]
            found = Candidate.around(row.sentence, clip, moment, score, args.pad, sample.duration)
            found.cut(args.video)
            clips[-1].append(dict(file=clip.name, offset=found.offset, duration=found.duration))
    return clips


def ground_tubes(args: argparse.Namespace, config: Config) -> list[dict]:
    """Print tubes, write what is asked for, and return the answers as plain data."""
    if not args.sentences:
        raise InputError('give a sentence')
    stem, outputs = printable(Path(args.video).stem), None
    if args.out:
        ends = [f'_{i}.{kind}' for i in range(len(args.sentences)) for kind in ('png', 'mp4')]
        outputs = Outputs(args.out, args.video, stem, [*ends, '_tubes.json'])
    inferencer = TubeGroundingInferencer(config, args.checkpoint, args.device)
    tubes = None
    if args.tracks:
        tubes = read_tracks(args.tracks, Path(args.video).name, inferencer.streams)
    answers = inferencer(args.video, args.sentences, tubes)  # which checks the sentences first
    warn_of_unknown_words(inferencer.model, args.sentences)
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
    if outputs:
        with outputs.writing() as path:
            for i, found in enumerate(answers):
                shown = found['sentence'], found['tube']
                picture = draw_tube_frames(args.video, *shown)
                GroundingVisualizer.save_image(picture, path(f'_{i}.png'))
                write_tube_video(args.video, path(f'_{i}.mp4'), *shown)
            named = {f'{stem}#{i}': found['tube'] for i, found in enumerate(answers)}
            write_submission(path('_tubes.json'), named)
    return [found | dict(tube=found['tube'].tolist()) for found in answers]
