"""Check feature files against annotations."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence

import numpy as np

from ..feature_error import FeatureError
from ..feature_store import FeatureStore
from ..open_feature_store import open_feature_store
from .check_report import CheckReport

ZERO = 'features are all zero'
CONSTANT = 'features never change: all rows are the same'
ZERO_ROWS = 'rows of zeros in features'
SAME_ROWS = 'most rows of the features are the same'


def check_features(
    files: Sequence[str],
    keys: Sequence[str | None],
    video_ids: Sequence[str],
    split: str,
    report: CheckReport,
    in_channels: int | None = None,
    quick: bool = False,
    skip: Container[str] = (),
    track: Callable[[Iterable, str], Iterable] = lambda items, text: items,
) -> None:
    """Check that every video has usable features, of which something can be learned.

    Args:
        files (Sequence[str]): Feature files or folders, joined along D.
        keys (Sequence[str | None]): Feature key of each.
        video_ids (Sequence[str]): Videos that the annotations need.
        split (str): Name of the split in the report.
        report (CheckReport): Takes what is found.
        in_channels (int, optional): D that the model takes. Defaults to None: not compared.
        quick (bool): Look at shapes alone, not at values. Defaults to False.
        skip (Container[str]): Videos whose values were checked before. Defaults to none.
        track (Callable): Wraps an iterable to show progress, given a description. Defaults to none.
    """
    sizes = []
    for path, key in zip(files, keys, strict=True):
        try:
            store = open_feature_store(path, key)
            present = _present(store, video_ids, split, report)
        except (FileNotFoundError, FeatureError) as error:
            report.add('error', split, 'unusable feature file', str(error))
            continue
        fresh = [video_id for video_id in present if video_id not in skip]
        sizes.append(_check_store(store, track(fresh, f'{split}: {path}'), split, report, quick))
        store.close()
    if in_channels is None or len(sizes) < len(files) or None in sizes:
        return
    report.note(split, feature_size=sum(sizes))
    if sum(sizes) != in_channels:
        joined = ' + '.join(map(str, sizes)) + (f' = {sum(sizes)}' if len(sizes) > 1 else '')
        report.add(
            'error',
            split,
            'wrong feature size',
            f'{", ".join(map(str, files))}: D = {joined}, but the config has '
            f'model.backbone.in_channels={in_channels}; set it to {sum(sizes)} or use the '
            'features the config is for',
        )


def _present(
    store: FeatureStore, video_ids: Sequence[str], split: str, report: CheckReport
) -> list[str]:
    available = store.video_ids()
    present = [video_id for video_id in video_ids if video_id in available]
    report.count(split, with_features=len(present))
    for video_id in video_ids:
        if video_id not in available:
            report.add('error', split, 'video without features', str(store.where(video_id)))
    return present


def _check_store(
    store: FeatureStore, video_ids: Iterable[str], split: str, report: CheckReport, quick: bool
) -> int | None:
    """Check each video; return the size D of most videos, None where no video is usable."""
    sizes, constant = {}, []
    for video_id in video_ids:
        try:
            features = None if quick else store.read(video_id)
            shape = store.shape(video_id) if quick else features.shape
            store.check_shape(video_id, shape)
        except FeatureError as error:
            report.add('error', split, error.kind, str(error))
            continue
        sizes[video_id] = int(shape[1])
        problem = None if quick else lack_of_content(features)
        if problem == CONSTANT:
            constant.append(video_id)
        elif problem:
            report.add(
                'error' if problem == ZERO else 'warning',
                split,
                problem,
                f'{store.where(video_id)}, shape {shape}',
            )
    if not sizes:
        return None
    for video_id in constant:  # a video may be a still picture, but not most of them
        report.add(
            'error' if 2 * len(constant) > len(sizes) else 'warning',
            split,
            CONSTANT,
            store.where(video_id),
        )
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for video_id, size in sizes.items():
        if size != usual:
            report.add(
                'error',
                split,
                'feature size differs between videos',
                f'{store.where(video_id)}: D = {size}, most others {usual}',
            )
    return usual


def lack_of_content(features: np.ndarray) -> str | None:
    """What makes a video's features tell nothing, or little, of when something happens.

    Args:
        features (np.ndarray): (T, D), finite.

    Returns:
        str | None: `ZERO`, `CONSTANT`, `ZERO_ROWS`, `SAME_ROWS` (of more than half of the video),
        or None. A single row is only looked at for zeros.
    """
    largest = np.abs(features).max(axis=1)  # (T,)
    if not largest.any():
        return ZERO
    # the row that more than half of all rows are, if there is one
    usual = np.median(features, axis=0)  # (D,)
    same = np.abs(features - usual).max(axis=1) <= 1e-6 * largest.max()  # (T,)
    if len(features) > 1 and same.all():
        return CONSTANT
    if not largest.all():
        return ZERO_ROWS
    return SAME_ROWS if 2 * same.sum() > max(len(features), 2) else None
