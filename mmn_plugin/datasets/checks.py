"""Checks of a dataset before training on it."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmaction.registry import DATASETS, TOKENIZER
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmn_plugin.errors import InputError
from mmn_plugin.features import VIDEO_SUFFIXES
from mmn_plugin.structures import tube_iou
from mmn_plugin.structures.annotations import (
    LONE_SURROGATE,
    AnnotationError,
    VideoAnnotation,
    load_annotation_file,
    parse_sentences,
    parse_video,
)
from mmn_plugin.structures.data_samples import token_limit

from .feature_store import FeatureError, FeatureStore, open_feature_store
from .grounding_dataset import TemporalGroundingDataset
from .tube_dataset import TubeGroundingDataset
from .tube_file import TubeError, TubeFile, TubeVideo


@dataclass
class Finding:
    """A kind of fault in one split, with how often it occurs and the first places.

    Attributes:
        level (str): ``'error'`` (training or evaluation would be wrong or end), ``'warning'`` (the
            dataset's own rules mend it) or ``'info'``.
        split (str): Split or splits it was found in.
        what (str): The fault in a few words.
        count (int): How often.
        examples (list[str]): The first places: file, video, sentence.
    """

    level: str
    split: str
    what: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class CheckReport:
    """Counts per split, and findings by kind with their first offenders.

    Args:
        num_examples (int): Offenders that are kept by name for each kind of finding. Defaults to 3.
    """

    STYLES = dict(error='bold red', warning='yellow', info='cyan')

    def __init__(self, num_examples: int = 3):
        self.num_examples = num_examples
        self.counts: dict[str, dict[str, object]] = {}
        self._findings: dict[tuple[str, str, str], Finding] = {}

    def add(self, level: str, split: str, what: str, example: str) -> None:
        """Count one more offender of a kind.

        Args:
            level (str): ``'error'``, ``'warning'`` or ``'info'``.
            split (str): Split it is in.
            what (str): Kind of finding.
            example (str): The offender: file, video, sentence, and what to do.
        """
        finding = self._findings.setdefault((level, split, what), Finding(level, split, what))
        finding.count += 1
        if len(finding.examples) < self.num_examples:  # such that every terminal can show it
            finding.examples.append(LONE_SURROGATE.sub(lambda part: repr(part[0])[1:-1], example))

    def count(self, split: str, **counts: int) -> None:
        """Add to numbers of a split, for the table."""
        row = self.counts.setdefault(split, {})
        for name, number in counts.items():
            row[name] = row.get(name, 0) + number

    def note(self, split: str, **facts: object) -> None:
        """Set facts about a split, for the table."""
        self.counts.setdefault(split, {}).update(facts)

    @property
    def findings(self) -> list[Finding]:
        """All findings, errors first."""
        order = list(self.STYLES)
        return sorted(self._findings.values(), key=lambda finding: order.index(finding.level))

    @property
    def passed(self) -> bool:
        """Whether nothing stands against training."""
        return not any(finding.level == 'error' for finding in self._findings.values())

    def render(self, console: Console) -> None:
        """Print the tables and the verdict."""
        console.print(self._counts_table())
        if self._findings:
            table = Table(title='Findings', title_justify='left', show_lines=True)
            for column, options in (
                ('level', {}),
                ('split', {}),
                ('finding', {}),
                ('count', dict(justify='right')),
                ('first offenders', dict(overflow='fold')),
            ):
                table.add_column(column, **options)
            for finding in self.findings:
                more = finding.count - len(finding.examples)
                shown = [*finding.examples, f'and {more} more'] if more > 0 else finding.examples
                table.add_row(
                    f'[{self.STYLES[finding.level]}]{finding.level}[/]',
                    finding.split,
                    escape(finding.what),
                    str(finding.count),
                    escape('\n'.join(shown)),
                )
            console.print(table)
        errors = sum(finding.level == 'error' for finding in self._findings.values())
        console.print(
            '[bold green]PASSED[/]: nothing stands against training'
            if self.passed
            else f'[bold red]FAILED[/]: {errors} kind(s) of error; training would be wrong'
        )

    def _counts_table(self) -> Table:
        columns = list(dict.fromkeys(name for row in self.counts.values() for name in row))
        table = Table(title='Counts', title_justify='left')
        table.add_column('split')
        for name in columns:
            table.add_column(name.replace('_', ' '), justify='right')
        for split, row in self.counts.items():
            cells = (row.get(name, '') for name in columns)
            table.add_row(split, *(f'{c:,}' if isinstance(c, int) else str(c) for c in cells))
        return table


def check_sentences(
    videos: Sequence[VideoAnnotation | TubeVideo],
    split: str,
    report: CheckReport,
    tokenizer: Any,
    max_tokens: int | None = None,
) -> None:
    """Check that the language model can take every sentence.

    Args:
        videos (Sequence[VideoAnnotation | TubeVideo]): Usable videos of a split.
        split (str): Its name in the report.
        report (CheckReport): Takes what is found.
        tokenizer (SentenceTokenizer): Tokenizer of the model.
        max_tokens (int, optional): Most tokens the language model takes. Defaults to None: only
            the tokenizer's own ``max_length`` counts.
    """
    longest = 0
    for video in videos:
        spoken = [
            (i, s)
            for i, s in zip(video.sentence_index, video.sentences, strict=True)
            # what is blank or broken is the annotations' fault and counted there
            if s.strip() and not LONE_SURROGATE.search(s)
        ]
        inspected = tokenizer.inspect([sentence for _, sentence in spoken])
        for (index, sentence), (length, problem) in zip(spoken, inspected, strict=True):
            where = f'video {video.video_id!r}, sentence {index} ({sentence!r})'
            longest = max(longest, length)
            if problem:
                report.add('error', split, 'sentence without a known word', f'{where} {problem}')
            _check_length(length, where, split, report, tokenizer.max_length, max_tokens)
    report.note(split, most_tokens=longest)


def _check_length(
    length: int,
    where: str,
    split: str,
    report: CheckReport,
    max_length: int | None,
    max_tokens: int | None,
) -> None:
    kept = length if max_length is None else min(length, max_length)
    if max_tokens is not None and kept > max_tokens:
        report.add(
            'error',
            split,
            "sentence over the language model's limit",
            f'{where}: {kept} tokens, limit {max_tokens}; shorten it, or set '
            f'model.data_preprocessor.tokenizer.max_length={max_tokens}',
        )
    elif kept < length:
        report.add(
            'warning',
            split,
            "sentence over the tokenizer's max_length: cut",
            f'{where}: {length} tokens, max_length {max_length}',
        )


def check_annotations(
    path: str | Path, split: str, report: CheckReport, weak: bool = False
) -> list[VideoAnnotation]:
    """Check every video of an annotation file.

    Args:
        path (str | Path): Annotation file in the published format.
        split (str): Its name in the report.
        report (CheckReport): Takes what is found.
        weak (bool): Of a weakly-supervised dataset: timestamps are not looked at. Defaults to
            False.

    Returns:
        list[VideoAnnotation]: The usable videos, as the dataset would hold them.
    """
    try:
        content = load_annotation_file(path)
    except (FileNotFoundError, AnnotationError) as error:
        report.add('error', split, 'unusable annotation file', str(error))
        return []
    videos = []
    for video_id, entry in content.items():
        blamed = not weak and _check_entry(path, video_id, entry, split, report)
        try:
            video = (parse_sentences if weak else parse_video)(path, video_id, entry)
        except AnnotationError as error:
            if not blamed:  # else it is already counted under its kind
                report.add('error', split, 'malformed entry', str(error))
            continue
        _check_sentences(path, video, split, report)
        if video.sentences:
            videos.append(video)
        else:
            report.add(
                'warning',
                split,
                'video without usable sentence: dropped',
                f'{Path(path).name}: video {video_id!r}',
            )
    report.count(split, videos=len(videos), sentences=sum(len(v.sentences) for v in videos))
    return videos


def _check_entry(path, video_id: str, entry: Any, split: str, report: CheckReport) -> bool:
    """Report the faults of one video that have a name; True where an error is among them."""
    where = f'{Path(path).name}: video {video_id!r}'
    duration, unit = _duration(entry)
    if duration is None:
        return False
    if duration <= 0:
        report.add('error', split, 'non-positive duration', f'{where}: {duration:g} s')
        return True
    blamed = False
    pairs = zip(entry.get('timestamps') or [], entry.get('sentences') or [], strict=False)
    for index, (timestamp, sentence) in enumerate(pairs):
        try:
            start, end = (float(time) / unit for time in timestamp)
        except (TypeError, ValueError):
            continue  # parse_video says what is wrong with it
        here = (
            f'{where}, sentence {index} ({sentence!r}): {start:.9g} to {end:.9g} s of '
            f'{duration:.9g} s'
        )
        if start >= end:
            report.add('warning', split, 'start >= end: sentence dropped', here)
        elif start >= duration or end <= 0:
            report.add('error', split, 'moment outside its video', here)
            blamed = True
        else:
            if start < 0:
                report.add('warning', split, 'start before the video: clamped to 0', here)
            if end > duration:
                report.add('warning', split, 'end after the video: clamped to its end', here)
    return blamed


def _check_sentences(path, video: VideoAnnotation, split: str, report: CheckReport) -> None:
    for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
        what = None if sentence.strip() else 'empty sentence'
        if LONE_SURROGATE.search(sentence):
            what = 'sentence with a part of a character'
        if what:
            report.add(
                'error',
                split,
                what,
                f'{Path(path).name}: video {video.video_id!r}, sentence {index} ({sentence!r})',
            )


def _duration(entry: Any) -> tuple[float | None, float]:
    """Duration in seconds (None where it cannot be read) and time units per second."""
    try:
        if 'duration' in entry:
            return float(entry['duration']), 1.0
        if float(entry['fps']) <= 0:
            return 0.0, 1.0
        return float(entry['num_frames']) / float(entry['fps']), float(entry['fps'])
    except (TypeError, ValueError, KeyError):
        return None, 1.0


def check_splits(
    video_ids: Mapping[str, set[str]], report: CheckReport, training: str = 'train'
) -> None:
    """Look for videos in more than one split, and for ids that may be two of one video.

    Training on a video that evaluation uses is an error. Evaluation splits may share videos, as
    ActivityNet Captions' do (two sets of sentences for the same videos). Ids that differ in case,
    spaces or a video's suffix alone are a warning.

    Args:
        video_ids (Mapping[str, set[str]]): Split -> ids of its videos.
        report (CheckReport): Takes what is found.
        training (str): Name of the training split. Defaults to 'train'.
    """
    splits = list(video_ids)
    alike = {split: _alike(ids) for split, ids in video_ids.items()}
    for split, groups in alike.items():
        for group in groups.values():
            if len(group) > 1:
                report.add('warning', split, 'ids of one video?', _shown(group))
    for place, first in enumerate(splits):
        for second in splits[place + 1 :]:
            level = 'error' if training in (first, second) else 'info'
            for video_id in sorted(video_ids[first] & video_ids[second]):
                report.add(level, f'{first}, {second}', 'videos in both splits', video_id)
            for key in sorted(alike[first].keys() & alike[second].keys()):
                group = alike[first][key] | alike[second][key]
                if len(group) > 1 and not alike[first][key] & alike[second][key]:
                    report.add('warning', f'{first}, {second}', 'ids of one video?', _shown(group))


def _alike(video_ids: Iterable[str]) -> dict[str, set[str]]:
    """Ids by what is left of them without case, spaces and suffix."""
    groups: dict[str, set[str]] = {}
    for video_id in video_ids:
        key = ''.join(unicodedata.normalize('NFKC', video_id).casefold().split())
        if Path(key).suffix in VIDEO_SUFFIXES:
            key = key[: -len(Path(key).suffix)]
        groups.setdefault(key, set()).add(video_id)
    return groups


def _shown(video_ids: Iterable[str]) -> str:
    return ' and '.join(map(repr, sorted(video_ids)))


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


SPLITS = ('train', 'val', 'test')


def check_config(
    cfg: Config,
    splits: Sequence[str] | None = None,
    quick: bool = False,
    num_examples: int = 3,
    track: Callable[[Iterable, str], Iterable] = lambda items, text: items,
) -> CheckReport:
    """Check annotations, features and sentences of a config's datasets, and its splits.

    Args:
        cfg (Config): With ``{train,val,test}_dataloader.dataset``; ``model.backbone.in_channels``,
            ``model.data_preprocessor.tokenizer`` and ``model.text_encoder`` are compared where
            the config has them.
        splits (Sequence[str], optional): Which of train, val, test. Defaults to all there are.
        quick (bool): Look at the shapes of features alone. Defaults to False.
        num_examples (int): Offenders named for each kind of finding. Defaults to 3.
        track (Callable): See `check_features`.

    Raises:
        ValueError: If the config has none of the splits.
    """
    report = CheckReport(num_examples)
    available = [split for split in SPLITS if cfg.get(f'{split}_dataloader')]
    wanted = [split for split in splits or available if split in available]
    if not wanted or len(wanted) < len(splits or ()):
        raise InputError(
            f'the config has datasets for {available or "no split"}; '
            f'asked for {list(splits or SPLITS)}'
        )
    model = cfg.get('model') or {}
    in_channels = (model.get('backbone') or {}).get('in_channels')
    tokenizer, max_tokens = _language(model, report)
    video_ids, scanned = {}, {}
    for split in wanted:
        video_ids[split] = set()
        for dataset in _datasets(cfg[f'{split}_dataloader']['dataset'], split, report):
            source = (tuple(dataset.feature_files), tuple(dataset.feature_keys))
            seen = scanned.setdefault(source, set())  # ActivityNet's val and test share videos
            if isinstance(dataset, TubeGroundingDataset):
                values = not quick and not seen
                videos = check_tubes(dataset, split, report, in_channels, not values, track)
            else:
                videos = check_annotations(dataset.ann_file, split, report, dataset.weak)
                needed = [video.video_id for video in videos]
                check_features(*source, needed, split, report, in_channels, quick, seen, track)
            seen.update(video.video_id for video in videos)
            video_ids[split].update(video.video_id for video in videos)
            if tokenizer is not None:
                check_sentences(videos, split, report, tokenizer, max_tokens)
            if not dataset.feature_files:
                report.add('error', split, 'no features', 'data_prefix.features is not set')
    check_splits(video_ids, report)
    return report


def _datasets(
    cfg: dict, split: str, report: CheckReport
) -> list[TemporalGroundingDataset | TubeGroundingDataset]:
    """The grounding datasets within a dataset config, which may be wrapped; nothing is loaded."""
    if 'datasets' in cfg:
        return [found for part in cfg['datasets'] for found in _datasets(part, split, report)]
    if 'dataset' in cfg:
        return _datasets(cfg['dataset'], split, report)
    try:
        dataset = DATASETS.build({**cfg, 'lazy_init': True, 'pipeline': []})
    except (KeyError, TypeError, ValueError) as error:
        report.add('error', split, 'dataset cannot be built', str(error.args[0]))
        return []
    if not isinstance(dataset, TemporalGroundingDataset | TubeGroundingDataset):
        report.add(
            'error',
            split,
            'dataset of another kind',
            f'{type(dataset).__name__} is '
            'neither a TemporalGroundingDataset nor a TubeGroundingDataset',
        )
        return []
    return [dataset]


def _language(model: dict, report: CheckReport) -> tuple[Any, int | None]:
    """Tokenizer and token limit of the model; what cannot be had is said in the report."""
    tokenizer_cfg = (model.get('data_preprocessor') or {}).get('tokenizer')
    if tokenizer_cfg is None:
        return None, None
    try:
        tokenizer = TOKENIZER.build(tokenizer_cfg)
    except (OSError, ValueError) as error:
        report.add('error', 'all', 'tokenizer cannot be built', str(error))
        return None, None
    language_model = _language_model_config(model.get('text_encoder') or {}, report)
    vocab_size = getattr(language_model, 'vocab_size', None)
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        report.add(
            'error',
            'all',
            'tokenizer of another language model',
            f'model.data_preprocessor.tokenizer has {tokenizer.vocab_size} tokens, '
            f'model.text_encoder takes {vocab_size}; set both to the same language model',
        )
    return tokenizer, None if language_model is None else token_limit(language_model)


def _language_model_config(text_encoder: dict, report: CheckReport) -> Any:
    from transformers import AutoConfig  # takes a second

    name, config = text_encoder.get('name_or_path'), text_encoder.get('config')
    if name is None and config is None:
        return None
    try:
        return AutoConfig.for_model(**config) if name is None else AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        report.add(
            'error',
            'all',
            'language model not found',
            f'model.text_encoder: {str(error).splitlines()[0]}',
        )
        return None
