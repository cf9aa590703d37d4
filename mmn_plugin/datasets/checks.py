"""Checks of a dataset before training on it."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from mmaction.registry import DATASETS, MODELS, TOKENIZER
from mmengine.config import Config

from mmn_plugin.errors import InputError
from mmn_plugin.features import VIDEO_SUFFIXES
from mmn_plugin.features.feature_file import CONSTANT, ZERO, lack_of_content
from mmn_plugin.hub import from_hub
from mmn_plugin.structures import tube_iou
from mmn_plugin.structures.annotations import LONE_SURROGATE, AnnotationError, VideoAnnotation
from mmn_plugin.structures.data_samples import token_limit

from .check_report import CheckReport
from .feature_store import FeatureError, FeatureStore, open_feature_store
from .grounding_dataset import TemporalGroundingDataset, TubeGroundingDataset, single_configs
from .label_check import LabelGroup, check_labels, past_end
from .transforms import row_problem
from .tube_file import TubeError, TubeFile, TubeVideo


def check_splits(video_ids: Mapping[str, set[str]], report: CheckReport) -> None:
    """Look for videos in more than one split, and for ids that may be two of one video.

    Training on a video that evaluation uses is an error. Evaluation splits may share videos, as
    ActivityNet Captions' do (two sets of sentences for the same videos). Ids that differ in case,
    spaces or a video's suffix alone are a warning.

    Args:
        video_ids (Mapping[str, set[str]]): Split -> ids of its videos.
        report (CheckReport): Takes what is found.
    """
    alike = {split: _alike(ids) for split, ids in video_ids.items()}
    groups = [(split, group) for split, found in alike.items() for group in found.values()]
    for one, other in combinations(video_ids, 2):
        both = f'{one}, {other}'
        level = 'error' if 'train' in (one, other) else 'info'
        for video_id in sorted(video_ids[one] & video_ids[other]):
            report.add(level, both, 'videos in both splits', video_id)
        for key in sorted(alike[one].keys() & alike[other].keys()):
            if not alike[one][key] & alike[other][key]:
                groups.append((both, alike[one][key] | alike[other][key]))
    for split, group in groups:
        if len(group) > 1:
            names = ' and '.join(map(repr, sorted(group)))
            report.add('warning', split, 'ids of one video?', names)


def _alike(video_ids: Iterable[str]) -> dict[str, set[str]]:
    """Ids by what is left of them without case, spaces and suffix."""
    groups = defaultdict(set)
    for video_id in video_ids:
        key = ''.join(unicodedata.normalize('NFKC', video_id).casefold().split())
        suffix = Path(key).suffix
        groups[key.removesuffix(suffix) if suffix in VIDEO_SUFFIXES else key].add(video_id)
    return groups


Track = Callable[[Iterable, str], Iterable]


@dataclass
class SplitCheck:
    """Checks of one dataset of a split; each puts what it finds into a report."""

    report: CheckReport
    split: str
    in_channels: int | None  # D that the model takes; None: not compared
    quick: bool
    track: Track
    prefix: str  # what the ids of samples have before a video's id
    timed: list[VideoAnnotation]  # takes videos with windows, and the ids of samples
    past_end: list[LabelGroup]  # takes those of which a window ends after the video

    def __post_init__(self):
        self.counts = self.report.counts[self.split]
        self.error = partial(self.report.add, 'error', self.split)
        self.warning = partial(self.report.add, 'warning', self.split)

    def annotations(self, dataset: TemporalGroundingDataset) -> list[VideoAnnotation]:
        """Check an annotation file; gives the usable videos, as the dataset would hold them."""
        try:
            content = dataset.load_entries()
        except (FileNotFoundError, AnnotationError) as error:
            self.report.add_file(self.split, 'unusable annotation file', str(error))
            return []
        videos, name = [], Path(dataset.ann_file).name
        for video_id, entry in content.items():
            flaws, where = [], f'{name}: video {video_id!r}'
            try:
                video = dataset.parse_entry(name, video_id, entry, flaws)
            except AnnotationError as error:
                self.error(error.kind, str(error))
                continue
            for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
                here = f'{where}, sentence {index} ({sentence!r})'
                if LONE_SURROGATE.search(sentence):
                    flaws.append(('error', 'sentence with a part of a character', here))
                elif not sentence.strip():
                    flaws.append(('error', 'empty sentence', here))
            for level, kind, message in flaws:
                self.report.add(level, self.split, kind, message)
            usable = not any(level == 'error' for level, _, _ in flaws)
            if usable and video.sentences:
                videos.append(video)
                self._labels(replace(video, video_id=self.prefix + video_id), entry)
            elif usable:
                self.warning('video without usable sentence: dropped', where)
        self._count(videos)
        self._windows(videos, str(dataset.ann_file))
        return videos

    def _labels(self, video: VideoAnnotation, entry: dict) -> None:
        """Note what `check_labels` looks at."""
        if video.windows is not None:
            self.timed.append(video)
            self.past_end += filter(None, [past_end(video, entry)])

    def _windows(self, videos: Sequence[VideoAnnotation], path: str) -> None:
        """Count sentences with none or several windows; tell where nothing is left to learn."""
        if not videos:
            self.error('no usable sentence: training and test end', path)
        numbers = [len(own) for video in videos for own in video.windows or ()]
        several = sum(number > 1 for number in numbers)
        if numbers and not any(numbers):
            kind = 'no sentence has a window: moments are neither learned nor scored'
            self.warning(kind, path)
        for kind, count in dict(absent=numbers.count(0), in_several_windows=several).items():
            if count:
                self.counts[kind] += count

    def _count(self, videos: Sequence[VideoAnnotation | TubeVideo]) -> None:
        self.counts['videos'] += len(videos)
        self.counts['sentences'] += sum(len(video.sentences) for video in videos)

    def sentences(
        self,
        videos: Sequence[VideoAnnotation | TubeVideo],
        inspect: Callable,
        cut: int | None,
        max_tokens: int | None,
    ) -> None:
        """Check that every sentence, cut to so many tokens, is one that the model can take."""
        for video in videos:
            inspected = inspect(video.sentences)
            for index, sentence, (length, problem) in zip(
                video.sentence_index, video.sentences, inspected, strict=True
            ):
                where = f'video {video.video_id!r}, sentence {index} ({sentence!r})'
                self.counts['most_tokens'] = max(self.counts['most_tokens'], length)
                if problem:
                    self.error('sentence without a known word', f'{where} {problem}')
                kept = min(length, cut or length)
                if max_tokens is not None and kept > max_tokens:
                    self.error(
                        "sentence over the language model's limit",
                        f'{where}: {kept} tokens, limit {max_tokens}; shorten it, or set '
                        f'model.data_preprocessor.tokenizer.max_length={max_tokens}',
                    )
                elif kept < length:
                    self.warning(
                        "sentence over the tokenizer's max_length: cut",
                        f'{where}: {length} tokens, of which {kept} are kept',
                    )

    def videos(
        self, dataset: TemporalGroundingDataset | TubeGroundingDataset, seen: Container[str]
    ) -> list[VideoAnnotation | TubeVideo]:
        """Check annotations and features; gives the videos. The values of some were checked."""
        if isinstance(dataset, TubeGroundingDataset):
            return self.tubes(dataset, self.quick or bool(seen))
        videos = self.annotations(dataset)
        self.features(dataset, {video.video_id: video.duration for video in videos}, seen)
        return videos

    def ids(self, videos: Sequence, dataset, origin: dict[str, list[str]]) -> None:
        """Look for ids that datasets of other features, noted in ``origin``, have as well."""
        for name in [self.prefix + video.video_id for video in videos]:
            files = origin.setdefault(name, dataset.feature_files)
            if files != dataset.feature_files:
                both = ', '.join((*files, *dataset.feature_files))
                where = f'{name!r}, features in {both}; give each dataset a corpus of its own'
                self.error('one id in two datasets', where)

    def features(
        self,
        dataset: TemporalGroundingDataset,
        durations: Mapping[str, float],
        skip: Container[str],
    ) -> None:
        """Check that every video, given with its seconds, has usable features.

        The values of some were checked before.
        """
        sizes, files, complete = [], dataset.feature_files, {*durations}
        for path, key in zip(files, dataset.feature_keys, strict=True):
            try:
                store = open_feature_store(path, key)
                available = store.video_ids()
            except (FileNotFoundError, FeatureError) as error:
                self.report.add_file(self.split, 'unusable feature file', str(error))
                complete.clear()
                continue
            for video_id in durations:
                if video_id not in available:
                    self.error('video without features', store.where(video_id))
            complete &= available
            fresh = [name for name in durations if name in available and name not in skip]
            fresh = self.track(fresh, f'{self.split}: {path}')
            sizes += self._store(store, fresh, durations, dataset.row_seconds)
            store.close()
        self.counts['with_features'] += len(complete) if files else 0
        if len(sizes) == len(files):
            self._compare_with_model(', '.join(files), sizes)

    def _store(
        self,
        store: FeatureStore,
        video_ids: Iterable[str],
        durations: Mapping[str, float],
        row_seconds: float | None,
    ) -> list[int]:
        """Check each video; give the size D of most videos, none where no video is usable."""
        sizes, constant = {}, []
        for video_id in video_ids:
            where = store.where(video_id)
            try:
                features = None if self.quick else store.read(video_id)
                shape = store.shape(video_id) if self.quick else features.shape
                store.check_shape(video_id, shape)
            except FeatureError as error:
                self.error(error.kind, str(error))
                continue
            sizes[where] = [int(shape[1])]
            if row_seconds and (told := row_problem(shape[0], durations[video_id], row_seconds)):
                self.error('more or fewer rows than the video lasts', f'{where}: {told}')
            problem = None if self.quick else lack_of_content(features)
            if problem == CONSTANT:
                constant.append(where)
            elif problem:
                tell = self.error if problem == ZERO else self.warning
                tell(problem, f'{where}, shape {shape}')
        for where in constant:  # a video may be a still picture, but not most of them
            (self.error if 2 * len(constant) > len(sizes) else self.warning)(CONSTANT, where)
        return self._usual_sizes(sizes)

    def _usual_sizes(self, sizes: dict[str, list[int]]) -> list[int]:
        """Sizes D of most videos, [] of none; report the others."""
        usual = list(Counter(map(tuple, sizes.values())).most_common(1)[0][0]) if sizes else []
        for where, found in sizes.items():
            if found != usual:
                other = f'{where} of sizes {found}, most others {usual}'
                self.error('feature size differs between videos', other)
        return usual

    def _compare_with_model(self, files: str, sizes: list[int]) -> None:
        if self.in_channels is None or not sizes:
            return
        self.counts['feature_size'] = size = sum(sizes)
        if size != self.in_channels:
            joined = ' + '.join(map(str, sizes)) + (f' = {size}' if len(sizes) > 1 else '')
            self.error(
                'wrong feature size',
                f'{files}: D = {joined}, but the config has model.backbone.in_channels='
                f'{self.in_channels}; set it to {size}, or use the features the config is for',
            )

    def tubes(self, dataset: TubeGroundingDataset, quick: bool) -> list[TubeVideo]:
        """Check a tube file, with truth to train with; gives the videos without their features."""
        videos, sizes = [], {}
        try:
            file = TubeFile(dataset.ann_file)
        except (FileNotFoundError, TubeError) as error:
            self.report.add_file(self.split, 'unusable tube file', str(error))
            return []
        for video_id in self.track(file.video_ids(), f'{self.split}: {file.path}'):
            where = f'{file.path}: video {video_id!r}'
            try:
                video = file.read(video_id, () if quick else dataset.streams)
                if video.tubes:
                    found = file.feature_sizes(video_id, dataset.streams)
                    sizes[f'{where}: streams {dataset.streams}'] = found
            except TubeError as error:
                self.error('unusable video', str(error))
                continue
            for stream, parts in video.features.items():
                problem = lack_of_content(np.concatenate(parts)) if parts else None
                if problem in (ZERO, CONSTANT):
                    tell = self.error if problem == ZERO else self.warning
                    tell(problem, f'{where}, stream {stream!r}')
            video.features = {}
            videos.append(video)
        file.close()
        if not sizes:
            self.error('no video with a candidate tube', dataset.ann_file)
        without = [video for video in videos if not video.ground_truth]
        truth_needed = not dataset.test_mode or len(without) < len(videos)
        for video in without:
            where = f'{dataset.ann_file}: video {video.video_id!r}'
            level = 'error' if truth_needed else 'info'
            self.report.add(level, self.split, 'video without ground truth', where)
        for video in videos:
            self._candidates(video, dataset)
        self._compare_with_model(dataset.ann_file, self._usual_sizes(sizes))
        self._count(videos)
        self.counts['tubes'] += sum(len(video.tubes) for video in videos)
        return videos

    def _candidates(self, video: TubeVideo, dataset: TubeGroundingDataset) -> None:
        """Warn of a video without candidate tubes, and of true tubes that no candidate meets."""
        where = f'{dataset.ann_file}: video {video.video_id!r}'
        if not video.tubes:
            fate = 'counts as not found' if dataset.test_mode else 'left out'
            self.warning(f'video without candidate tubes: {fate}', where)
            return
        for index, truth in enumerate(video.ground_truth):
            if not any(tube_iou(tube, truth)[0] for tube in video.tubes):
                here = f'{where}, sentence {index} ({video.sentences[index]!r})'
                self.warning('sentence whose true tube no candidate meets', here)


def check_config(
    cfg: Config,
    splits: Sequence[str] | None = None,
    quick: bool = False,
    num_examples: int = 3,
    track: Track = lambda items, text: items,
    features: bool = True,
) -> CheckReport:
    """Check annotations, features and sentences of a config's datasets, and its splits.

    Args:
        cfg (Config): With ``{train,val,test}_dataloader.dataset``; ``model.backbone.in_channels``,
            ``model.data_preprocessor.tokenizer`` and ``model.text_encoder`` are compared where
            the config has them. Without a tokenizer sentences are those of ``model.tower``.
        splits (Sequence[str], optional): Which of train, val, test. Defaults to all there are.
        quick (bool): Look at the shapes of features alone, not at values. Defaults to False.
        num_examples (int): Offenders named for each kind of finding. Defaults to 3.
        track (Callable): Wraps an iterable to show progress, given a description. Defaults to none.
        features (bool): Whether there have to be features. Defaults to True.

    Raises:
        ValueError: If the config has none of the splits.
    """
    report = CheckReport(num_examples)
    available = [split for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')]
    wanted = [split for split in splits or available if split in available]
    if not wanted or len(wanted) < len(splits or ()):
        raise InputError(
            f'the config has datasets for {available or "no split"}; asked for {splits or "all"}'
        )
    model = cfg.get('model') or {}
    in_channels = (model.get('backbone') or {}).get('in_channels')
    language = _language(model, partial(report.add, 'error', 'all'))
    video_ids, scanned, labels = defaultdict(dict), defaultdict(set), defaultdict(lambda: ([], []))
    for split in wanted:
        for part in single_configs(cfg[f'{split}_dataloader']['dataset']):
            corpus = part.get('corpus')
            label, prefix = (f'{split} {corpus}', f'{corpus}/') if corpus else (split, '')
            check = SplitCheck(report, label, in_channels, quick, track, prefix, *labels[label])
            dataset = _grounding_dataset(part, check.error)
            if dataset is None:
                continue
            # ActivityNet's val and test share videos
            seen = scanned[tuple(dataset.feature_files), tuple(dataset.feature_keys)]
            videos = check.videos(dataset, seen)
            seen.update(video.video_id for video in videos)
            check.ids(videos, dataset, video_ids[split])
            if language is not None:
                check.sentences(videos, *language)
            if features and not dataset.feature_files:
                check.error('no features', 'data_prefix.features is not set')
    check_splits({split: {*names} for split, names in video_ids.items()}, report)
    check_labels(labels, report, model, quick, track)
    return report


def _grounding_dataset(
    cfg: dict, error: Callable[[str, str], None]
) -> TemporalGroundingDataset | TubeGroundingDataset | None:
    """Build a dataset, of which nothing is loaded; None where it is not one of these."""
    try:
        dataset = DATASETS.build({**cfg, 'lazy_init': True, 'pipeline': []})
        if isinstance(dataset, TemporalGroundingDataset | TubeGroundingDataset):
            return dataset
        kinds = 'neither a TemporalGroundingDataset nor a TubeGroundingDataset'
        raise TypeError(f'{type(dataset).__name__} is {kinds}')
    except (KeyError, TypeError, ValueError) as mistake:
        error('dataset cannot be built', str(mistake.args[0]))


def _language(
    model: dict, error: Callable[[str, str], None]
) -> tuple[Callable, int | None, int | None] | None:
    """What inspects sentences, the tokens to which it cuts them, and the model's limit of tokens.

    What cannot be had is said in the report; None where there is nothing to inspect sentences.
    """
    tokenizer_cfg = (model.get('data_preprocessor') or {}).get('tokenizer')
    if tokenizer_cfg is not None:
        return _language_model(model, tokenizer_cfg, error)
    if model.get('tower') is None:
        return None
    try:
        tower = MODELS.build(model['tower'])
        return tower.inspect, tower.max_tokens, None
    except (OSError, ValueError, KeyError, TypeError) as mistake:
        error('tower cannot be built', str(mistake).splitlines()[0])
        return None


def _language_model(
    model: dict, tokenizer_cfg: dict, error: Callable[[str, str], None]
) -> tuple[Callable, int | None, int | None] | None:
    """As `_language`, of a tokenizer and a language model."""
    from transformers import AutoConfig  # takes a second

    encoder, tokenizer = model.get('text_encoder') or {}, None
    name, config = encoder.get('name_or_path'), encoder.get('config')
    try:
        tokenizer = TOKENIZER.build(tokenizer_cfg)
        if name is config is None:
            return tokenizer.inspect, tokenizer.max_length, None
        language_model = (
            AutoConfig.for_model(**config)
            if name is None
            else from_hub(AutoConfig.from_pretrained, name)
        )
    except (OSError, ValueError, KeyError, TypeError) as mistake:
        part = 'tokenizer cannot be built' if tokenizer is None else 'language model not found'
        error(part, str(mistake).splitlines()[0])
        return tokenizer and (tokenizer.inspect, tokenizer.max_length, None)
    vocab_size = getattr(language_model, 'vocab_size', None)
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        error(
            'tokenizer of another language model',
            f'model.data_preprocessor.tokenizer has {tokenizer.vocab_size} tokens, '
            f'model.text_encoder takes {vocab_size}; set both to the same language model',
        )
    return tokenizer.inspect, tokenizer.max_length, token_limit(language_model)
