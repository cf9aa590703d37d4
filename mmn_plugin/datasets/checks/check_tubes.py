"""Check a tube file."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from ...structures.tube_iou import tube_iou
from ..tube_grounding_dataset import TubeGroundingDataset
from ..tubes import TubeError, TubeFile, TubeVideo
from .check_features import CONSTANT, ZERO, lack_of_content
from .check_report import CheckReport


def check_tubes(
    dataset: TubeGroundingDataset,
    split: str,
    report: CheckReport,
    in_channels: int | None = None,
    quick: bool = False,
    track: Callable[[Iterable, str], Iterable] = lambda items, text: items,
) -> list[TubeVideo]:
    """Check every video of a tube file: boxes, ground truth, and features.

    Args:
        dataset (TubeGroundingDataset): Which file and streams; nothing of it is loaded.
        split (str): Its name in the report. What is there to train with needs ground truth.
        report (CheckReport): Takes what is found.
        in_channels (int, optional): D that the model takes. Defaults to None: not compared.
        quick (bool): Look at the shapes of features alone, not at values. Defaults to False.
        track (Callable): Wraps an iterable to show progress, given a description. Defaults to none.

    Returns:
        list[TubeVideo]: The usable videos, without features.
    """
    try:
        file = TubeFile(dataset.ann_file)
    except (FileNotFoundError, TubeError) as error:
        report.add('error', split, 'unusable tube file', str(error))
        return []
    videos, sizes = [], {}
    for video_id in track(file.video_ids(), f'{split}: {file.path}'):
        try:
            video = file.read(video_id, () if quick else dataset.streams)
            if video.tubes:
                sizes[video_id] = file.feature_sizes(video_id, dataset.streams)
        except TubeError as error:
            report.add('error', split, 'unusable video', str(error))
            continue
        _check_values(video, f'{file.path}: video {video_id!r}', split, report)
        video.features = {}
        videos.append(video)
    file.close()
    _check_contents(videos, dataset, split, report)
    _check_sizes(sizes, dataset, split, report, in_channels)
    report.count(
        split,
        videos=len(videos),
        sentences=sum(len(v.sentences) for v in videos),
        tubes=sum(len(video.tubes) for video in videos),
    )
    return videos


def _check_values(video: TubeVideo, where: str, split: str, report: CheckReport) -> None:
    """Report features that are the same wherever in the video."""
    for stream, parts in video.features.items():
        problem = lack_of_content(np.concatenate(parts)) if parts else None
        if problem in (ZERO, CONSTANT):
            report.add(
                'error' if problem == ZERO else 'warning',
                split,
                problem,
                f'{where}, stream {stream!r}',
            )


def _check_contents(
    videos: list[TubeVideo], dataset: TubeGroundingDataset, split: str, report: CheckReport
) -> None:
    """Report videos without tubes or ground truth, and tubes that answer nothing."""
    training = not dataset.test_mode
    if not any(video.tubes for video in videos):
        report.add('error', split, 'no video with a candidate tube', str(dataset.ann_file))
    without = sum(not video.ground_truth for video in videos)
    for video in videos:
        where = f'{dataset.ann_file}: video {video.video_id!r}'
        if not video.tubes:
            fate = 'left out' if training else 'counts as not found'
            report.add('warning', split, f'video without candidate tubes: {fate}', where)
        if not video.ground_truth:
            level = 'error' if training or without < len(videos) else 'info'
            report.add(level, split, 'video without ground truth', where)
        for index, truth in enumerate(video.ground_truth if video.tubes else ()):
            if not any(tube_iou(tube, truth)[0] for tube in video.tubes):
                report.add(
                    'warning',
                    split,
                    'sentence whose true tube no candidate meets',
                    f'{where}, sentence {index} ({video.sentences[index]!r})',
                )


def _check_sizes(
    sizes: dict[str, list[int]],
    dataset: TubeGroundingDataset,
    split: str,
    report: CheckReport,
    in_channels: int | None,
) -> None:
    """Compare the sizes of the streams between videos, and their sum with the model."""
    if not sizes:
        return
    usual = list(Counter(map(tuple, sizes.values())).most_common(1)[0][0])
    for video_id, found in sizes.items():
        if found != usual:
            report.add(
                'error',
                split,
                'feature size differs between videos',
                f'{dataset.ann_file}: video {video_id!r}: streams {dataset.streams} of '
                f'sizes {found}, most others {usual}',
            )
    report.note(split, feature_size=sum(usual))
    if in_channels is not None and sum(usual) != in_channels:
        joined = ' + '.join(map(str, usual)) + (f' = {sum(usual)}' if len(usual) > 1 else '')
        report.add(
            'error',
            split,
            'wrong feature size',
            f'{dataset.ann_file}: D = {joined}, but the config has '
            f'model.backbone.in_channels={in_channels}; set it to {sum(usual)}, or correct '
            '`streams`',
        )
