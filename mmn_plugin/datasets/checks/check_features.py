"""Check feature files against annotations."""
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence

from ..feature_error import FeatureError
from ..feature_store import FeatureStore
from ..open_feature_store import open_feature_store
from .check_report import CheckReport


def check_features(files: Sequence[str],
                   keys: Sequence[str | None],
                   video_ids: Sequence[str],
                   split: str,
                   report: CheckReport,
                   in_channels: int | None = None,
                   quick: bool = False,
                   skip: Container[str] = (),
                   track: Callable[[Iterable, str], Iterable] = lambda items, text: items) -> None:
    """Check that every video has usable features.

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
        report.add('error', split, 'wrong feature size',
                   f'{", ".join(map(str, files))}: D = {joined}, but the config has '
                   f'model.backbone.in_channels={in_channels}; set it to {sum(sizes)} or use the '
                   'features the config is for')


def _present(store: FeatureStore, video_ids: Sequence[str], split: str,
             report: CheckReport) -> list[str]:
    available = store.video_ids()
    present = [video_id for video_id in video_ids if video_id in available]
    report.count(split, with_features=len(present))
    for video_id in video_ids:
        if video_id not in available:
            report.add('error', split, 'video without features', str(store.where(video_id)))
    return present


def _check_store(store: FeatureStore, video_ids: Iterable[str], split: str, report: CheckReport,
                 quick: bool) -> int | None:
    """Check each video; return the size D of most videos, None where no video is usable."""
    sizes = {}
    for video_id in video_ids:
        try:
            shape = store.shape(video_id) if quick else store.read(video_id).shape
            store.check_shape(video_id, shape)
        except FeatureError as error:
            report.add('error', split, error.kind, str(error))
            continue
        sizes[video_id] = int(shape[1])
    if not sizes:
        return None
    usual = Counter(sizes.values()).most_common(1)[0][0]
    for video_id, size in sizes.items():
        if size != usual:
            report.add('error', split, 'feature size differs between videos',
                       f'{store.where(video_id)}: D = {size}, most others {usual}')
    return usual
