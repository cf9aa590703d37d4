"""The commands ``extract``, ``check`` and ``eval`` of `mmn_plugin.cli.main`.

Each imports what it needs: ``eval`` reads two files, and does without models.
"""

import argparse
import datetime
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import mmn_plugin
from mmn_plugin.cli.answers import (
    add_answer_options,
    print_figures,
    require_answer_format,
    require_apart,
    score_answers,
    usable_annotations,
)
from mmn_plugin.cli.main import (
    Parser,
    add_config_options,
    add_device,
    add_model_root,
    count,
    explicit_amp,
    whole_number,
)
from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    GroundingMetric,
    TubeResult,
    match_predictions,
    qvhighlights_figures,
    read_predictions,
    read_qvhighlights,
    read_submission,
    score_submission,
)
from mmn_plugin.files import OutputFolder, writable_file

DEFAULT = 'extractors/shapes_grid.py'
MEET = datetime.timedelta(minutes=10)  # for all processes to find each other


def parse_extract(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    from mmn_plugin.engine import add_amp

    parser = Parser('extract', run_extract.__doc__)
    add = parser.add_argument
    add('videos', nargs='+', help='video files, or folders of them')
    add('--out', required=True, type=writable_file, help='HDF5 file to write')
    add('--config', default=DEFAULT, help='a config with an `extractor` (default: %(default)s)')
    add('--checkpoint', help="weights in place of the config's: a file, or a Hugging Face folder")
    add_model_root(parser)
    add('--fps', type=float, help="frames per second that are looked at (default: the config's)")
    add('--stride', type=int, help="frames per row (default: the config's)")
    add_device(parser)
    add(
        '--workers',
        type=whole_number,
        help='videos at a time: threads that decode ahead of a GPU, on the CPU 1 such thread or '
        'several processes; 0: one step after the other (default: 4 on a GPU; on the CPU 2 for '
        'the grid extractor, else 0)',
    )
    add_amp(parser)
    add_config_options(parser)
    add('--launcher', choices=['none', 'pytorch'], default='none', help='pytorch: under torchrun')
    return parser.parse_args(explicit_amp(argv))


def join_group(launcher: str) -> bool:
    """Enter the group of processes that share the videos; whether this is the first of them."""
    if launcher == 'none':
        return True
    distributed = torch.distributed
    store, rank, processes = next(distributed.rendezvous('env://', timeout=MEET))
    # Only told when to begin and to end, which can be days apart; nothing is computed together.
    distributed.init_process_group(
        'gloo', store=store, rank=rank, world_size=processes, timeout=datetime.timedelta(days=30)
    )
    return rank == 0


def own_device(launcher: str) -> str | None:
    """The accelerator of this process, where each has one."""
    if launcher == 'none' or not torch.cuda.is_available():
        return None
    return f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count()}'


@contextmanager
def clean_stop():
    """End with one message at Ctrl-C and at SIGTERM, once what is finished is in the file."""
    code = 130

    def stop(*_) -> None:
        nonlocal code
        code = 143
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # of others Python knows none
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        if os.environ.get('RANK', '0') == '0':
            stopped = 'Stopped. Run the command again: it goes on with what is not finished.'
            print(stopped, file=sys.stderr)
        from mmn_plugin.engine.dist import end_distributed

        end_distributed(code=code)
        raise SystemExit(code) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def run_extract(args: argparse.Namespace, answer: Callable) -> int:
    """Write the features of videos to a file.

        mmn extract videos/ --out grid.h5                                         # needs no weights
        mmn extract videos/ --config c3d_fc6_sports1m --out c3d.h5
        torchrun --nproc-per-node 4 -m mmn extract videos/ --config i3d_r50_k400 --out i3d.h5 \\
            --launcher pytorch                                                # 4 GPUs share them

    Writes an HDF5 file with one (T, D) array per video, named after its file without suffix.
    Running it again goes on where it stopped. Exit code 1 if a video could not be read.
    """
    from mmn_plugin.engine.dist import end_distributed, require_launcher
    from mmn_plugin.features import build_extractor, extract_videos, extractor_config
    from mmn_plugin.features.extraction import ProgressBar

    with clean_stop():
        require_launcher(args.launcher)
        own = {name: getattr(args, name) for name in ('checkpoint', 'fps', 'stride', 'amp')}
        own['root'] = args.model_root
        settings = extractor_config(args.config, args.cfg_options, **own)
        extractor = build_extractor(settings, args.device or own_device(args.launcher))
        if args.amp:
            settings['amp'] = extractor.amp  # what it came to here
        workers = extractor.workers if args.workers is None else args.workers
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        first = join_group(args.launcher)
        with ProgressBar('features') as bar:
            report = extract_videos(
                extractor, args.videos, args.out, workers, bar, settings, bar.set_note
            )
        if not first:
            end_distributed()
            return 0
        answer(asdict(report))
    for line in report.lines():
        print(line, file=sys.stderr)
    if not report.failures:
        print(
            f'{args.out} is complete: {extractor.num_features} numbers per clip of '
            f'{extractor.stride / extractor.fps:g} s.'
        )
    code = 1 if report.failures else 0
    end_distributed(code=code)
    return code


def parse_check(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('check', run_check.__doc__)
    add, splits = parser.add_argument, ('train', 'val', 'test')
    add('config', help='path of a config, or the name of one of mmn_plugin')
    add('--split', nargs='+', choices=splits, help='splits to check (default: all there are)')
    add('--quick', action='store_true', help='look at the shapes of features, not at every value')
    add('--examples', type=int, default=3, help='offenders named for each finding (default: 3)')
    text = 'write a page of pictures of labels to look at, and their sentences as subsets, here'
    add('--labels', metavar='DIR', type=OutputFolder, help=text)
    text = 'pictures of each kind and split, with --labels (default: 12)'
    add('--pictures', type=count, default=12, metavar='N', help=text)
    add_model_root(parser)
    add_config_options(parser)
    return parser.parse_args(argv)


def run_check(args: argparse.Namespace, answer: Callable) -> int:
    """Check the datasets of a config before training: annotations, features, sentences, splits.

    Prints counts and findings with their first offenders; exit code 1 where training would be
    wrong. Labels that a person should look at are among them (docs/data.md).

        mmn check configs/mmn_tacos.py
        mmn check configs/mmn_tacos.py --split train --quick
        mmn check configs/mmn_tacos.py --labels labels/               # with labels/labels.html
    """
    from rich.console import Console
    from rich.progress import track

    from mmn_plugin.config import load_config
    from mmn_plugin.datasets import check_config
    from mmn_plugin.tower_settings import with_model_root
    from mmn_plugin.visualization.label_page import label_files, split_names, write_labels

    config = with_model_root(load_config(args.config, args.cfg_options), args.model_root)
    if args.labels:
        args.labels.claim(dict.fromkeys(label_files(split_names(config, args.split))))
    progress = Console(stderr=True)
    report = check_config(
        config,
        args.split,
        args.quick,
        args.examples,
        lambda items, text: track(items, text, console=progress, transient=True),
    )
    report.render(Console(width=None if sys.stdout.isatty() else 160))
    if args.labels and report.labels:
        write_labels(args.labels, report.labels, report.compared_by, args.pictures)
        print(f'Labels to look at are in {args.labels.path}/.')
    elif args.labels:
        print('No windows of sentences were read: there are no labels to look at.')
    findings = [asdict(finding) for finding in report.findings]
    labels = {split: found.figures() for split, found in report.labels.items()}
    answer(
        dict(
            passed=report.passed,
            counts=report.counts,
            findings=findings,
            labels=labels,
            labels_compared_by=report.compared_by,
        )
    )
    return 0 if report.passed else 1


def parse_eval(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser('eval', run_eval.__doc__)
    add = parser.add_argument
    add('predictions', help='file of predictions or answers (.json, with --format .jsonl)')
    text = 'annotation file (.json, of QVHighlights .jsonl), of tubes also a tube file (.h5)'
    add('annotations', type=Path, help=text)
    text = 'format of the files (default: moments or tubes, by their content)'
    add('--format', choices=['qvhighlights', 'answers'], help=text)
    text = 'of qvhighlights: leave out queries that one of the files lacks, else an error'
    add('--shared-only', action='store_true', help=text)
    text = 'thresholds: m of IoU=m (0.3 0.5 0.7), of tubes R of vIoU@R (0.3 0.5)'
    add('--iou', type=float, nargs='+', help=text)
    _add_moment_options(parser)
    add_answer_options(parser)
    args = parser.parse_args(argv)
    require_answer_format(parser, args)
    require_apart(parser, args)
    given = [args.chance_clips, args.chance_counts, args.chance_nms]
    if any(value is not None for value in given) and None in given:
        parser.error('the chance level needs --chance-clips, --chance-counts and --chance-nms')
    if args.shared_only and args.format != 'qvhighlights':
        parser.error('--shared-only needs --format qvhighlights')
    if args.format is None and Path(args.predictions).suffix == '.jsonl':
        parser.error(f'{args.predictions} is of which format? --format qvhighlights or answers')
    taken = ('predictions', 'annotations', 'format', 'shared_only', 'json')
    for name, value in vars(args).items() if args.format == 'qvhighlights' else ():
        if name not in taken and value != parser.get_default(name):
            parser.error(f'--format {args.format} does not take --{name.replace("_", "-")}')
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
    if not Path(args.predictions).is_file():
        return False
    with open(args.predictions, encoding='utf-8', errors='replace') as file:
        return any(key in file.read(4096) for key in ('"st_frame"', '"bbox"'))


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


def score_moments(args: argparse.Namespace) -> dict[str, float]:
    """Print the table of moments, and return the figures under the metric's names."""
    metric = _metric(args)
    predictions = read_predictions(args.predictions)
    annotations = usable_annotations(args.annotations)
    with _naming_both(args):
        results = match_predictions(predictions, annotations, metric.num_ranks)
    for note in _notes(predictions, annotations, max(args.top_n)):
        print(f'note: {note}', file=sys.stderr)
    return print_figures(metric, results)


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
