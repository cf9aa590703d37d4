"""Checks of a dataset before training on it."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmaction.registry import DATASETS, TOKENIZER
from mmengine.config import Config

from mmn_plugin.errors import InputError
from mmn_plugin.structures import tube_iou
from mmn_plugin.structures.annotations import (
    LONE_SURROGATE,
    AnnotationError,
    VideoAnnotation,
    load_annotation_file,
    parse_video,
)
from mmn_plugin.structures.data_samples import token_limit

from .check_report import CheckReport, check_splits
from .feature_store import FeatureError, FeatureStore, open_feature_store
from .grounding_dataset import TemporalGroundingDataset
from .tube_dataset import TubeGroundingDataset
from .tube_file import TubeError, TubeFile, TubeVideo

ZERO = 'features are all zero'
CONSTANT = 'features never change: all rows are the same'
ZERO_ROWS = 'rows of zeros in features'
SAME_ROWS = 'most rows of the features are the same'


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


Track = Callable[[Iterable, str], Iterable]


def no_progress(items: Iterable, text: str) -> Iterable:
    """Show no progress."""
    return items


class SplitCheck:
    """Checks of the parts of one split; each puts what it finds into a report.

    Args:
        report (CheckReport): Takes what is found.
        split (str): Name of the split in the report.
        in_channels (int, optional): D that the model takes. Defaults to None: not compared.
        quick (bool): Look at the shapes of features alone, not at values. Defaults to False.
        track (Callable): Wraps an iterable to show progress, given a description. Defaults to none.
    """

    def __init__(
        self,
        report: CheckReport,
        split: str,
        in_channels: int | None = None,
        quick: bool = False,
        track: Track = no_progress,
    ):
        self.report = report
        self.split = split
        self.in_channels = in_channels
        self.quick = quick
        self.track = track
        self.error = partial(report.add, 'error', split)
        self.warning = partial(report.add, 'warning', split)

    def annotations(self, path: str | Path, timed: bool = True) -> list[VideoAnnotation]:
        """Check every video of an annotation file.

        Args:
            path (str | Path): Annotation file in the published format.
            timed (bool): See `read_annotations`. Defaults to True.

        Returns:
            list[VideoAnnotation]: The usable videos, as the dataset would hold them.
        """
        try:
            content = load_annotation_file(path)
        except (FileNotFoundError, AnnotationError) as error:
            self.error('unusable annotation file', str(error))
            return []
        videos = []
        for video_id, entry in content.items():
            levels = set()

            def tell(level: str, kind: str, message: str, levels=levels) -> None:
                self.report.add(level, self.split, kind, message)
                levels.add(level)

            try:
                video = parse_video(Path(path).name, video_id, entry, timed, tell)
            except AnnotationError as error:
                self.error(error.kind, str(error))
                continue
            where = f'{Path(path).name}: video {video_id!r}'
            for index, sentence in zip(video.sentence_index, video.sentences, strict=True):
                here = f'{where}, sentence {index} ({sentence!r})'
                if LONE_SURROGATE.search(sentence):
                    self.error('sentence with a part of a character', here)
                elif not sentence.strip():
                    self.error('empty sentence', here)
            if 'error' in levels:
                continue
            if video.sentences:
                videos.append(video)
            else:
                self.warning('video without usable sentence: dropped', where)
        self._count(videos)
        return videos

    def _count(self, videos: Sequence[VideoAnnotation | TubeVideo], **counts: int) -> None:
        sentences = sum(len(video.sentences) for video in videos)
        self.report.count(self.split, videos=len(videos), sentences=sentences, **counts)

    def sentences(
        self,
        videos: Sequence[VideoAnnotation | TubeVideo],
        tokenizer: Any,
        max_tokens: int | None = None,
    ) -> None:
        """Check that the language model can take every sentence.

        Args:
            videos (Sequence[VideoAnnotation | TubeVideo]): Usable videos of the split.
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
                    self.error('sentence without a known word', f'{where} {problem}')
                kept = min(length, tokenizer.max_length or length)
                if max_tokens is not None and kept > max_tokens:
                    self.error(
                        "sentence over the language model's limit",
                        f'{where}: {kept} tokens, limit {max_tokens}; shorten it, or set '
                        f'model.data_preprocessor.tokenizer.max_length={max_tokens}',
                    )
                elif kept < length:
                    self.warning(
                        "sentence over the tokenizer's max_length: cut",
                        f'{where}: {length} tokens, max_length {kept}',
                    )
        self.report.note(self.split, most_tokens=longest)

    def features(
        self,
        files: Sequence[str],
        keys: Sequence[str | None],
        video_ids: Sequence[str],
        skip: Container[str] = (),
    ) -> None:
        """Check that every video has usable features, of which something can be learned.

        Args:
            files (Sequence[str]): Feature files or folders, joined along D.
            keys (Sequence[str | None]): Feature key of each.
            video_ids (Sequence[str]): Videos that the annotations need.
            skip (Container[str]): Videos whose values were checked before. Defaults to none.
        """
        sizes = []
        for path, key in zip(files, keys, strict=True):
            try:
                store = open_feature_store(path, key)
                available = store.video_ids()
            except (FileNotFoundError, FeatureError) as error:
                self.error('unusable feature file', str(error))
                continue
            present = [video_id for video_id in video_ids if video_id in available]
            self.report.count(self.split, with_features=len(present))
            for video_id in video_ids:
                if video_id not in available:
                    self.error('video without features', store.where(video_id))
            fresh = [video_id for video_id in present if video_id not in skip]
            sizes += self._store(store, self.track(fresh, f'{self.split}: {path}'))
            store.close()
        if len(sizes) == len(files):
            remedy = 'use the features the config is for'
            self._compare_with_model(', '.join(map(str, files)), sizes, remedy)

    def _store(self, store: FeatureStore, video_ids: Iterable[str]) -> list[int]:
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
        if not sizes:
            return []
        usual = list(Counter(map(tuple, sizes.values())).most_common(1)[0][0])
        for where, found in sizes.items():
            if found != usual:
                self.error(
                    'feature size differs between videos',
                    f'{where} of sizes {found}, most others {usual}',
                )
        return usual

    def _compare_with_model(self, files: str, sizes: list[int], remedy: str) -> None:
        if self.in_channels is None:
            return
        self.report.note(self.split, feature_size=sum(sizes))
        if sum(sizes) != self.in_channels:
            joined = ' + '.join(map(str, sizes)) + (f' = {sum(sizes)}' if len(sizes) > 1 else '')
            self.error(
                'wrong feature size',
                f'{files}: D = {joined}, but the config has model.backbone.in_channels='
                f'{self.in_channels}; set it to {sum(sizes)}, or {remedy}',
            )

    def tubes(self, dataset: TubeGroundingDataset) -> list[TubeVideo]:
        """Check every video of a tube file: boxes, ground truth, and features.

        Args:
            dataset (TubeGroundingDataset): Which file and streams; nothing of it is loaded. What is
                there to train with needs ground truth.

        Returns:
            list[TubeVideo]: The usable videos, without features.
        """
        try:
            file = TubeFile(dataset.ann_file)
        except (FileNotFoundError, TubeError) as error:
            self.error('unusable tube file', str(error))
            return []
        videos, sizes = [], {}
        for video_id in self.track(file.video_ids(), f'{self.split}: {file.path}'):
            where = f'{file.path}: video {video_id!r}'
            try:
                video = file.read(video_id, () if self.quick else dataset.streams)
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
        self._tube_contents(videos, dataset)
        if sizes:
            usual = self._usual_sizes(sizes)
            self._compare_with_model(str(dataset.ann_file), usual, 'correct `streams`')
        self._count(videos, tubes=sum(len(video.tubes) for video in videos))
        return videos

    def _tube_contents(self, videos: list[TubeVideo], dataset: TubeGroundingDataset) -> None:
        """Report videos without tubes or ground truth, and tubes that answer nothing."""
        training = not dataset.test_mode
        if not any(video.tubes for video in videos):
            self.error('no video with a candidate tube', str(dataset.ann_file))
        without = sum(not video.ground_truth for video in videos)
        for video in videos:
            where = f'{dataset.ann_file}: video {video.video_id!r}'
            if not video.tubes:
                fate = 'left out' if training else 'counts as not found'
                self.warning(f'video without candidate tubes: {fate}', where)
            if not video.ground_truth:
                level = 'error' if training or without < len(videos) else 'info'
                self.report.add(level, self.split, 'video without ground truth', where)
            for index, truth in enumerate(video.ground_truth if video.tubes else ()):
                if not any(tube_iou(tube, truth)[0] for tube in video.tubes):
                    self.warning(
                        'sentence whose true tube no candidate meets',
                        f'{where}, sentence {index} ({video.sentences[index]!r})',
                    )


SPLITS = ('train', 'val', 'test')


def check_config(
    cfg: Config,
    splits: Sequence[str] | None = None,
    quick: bool = False,
    num_examples: int = 3,
    track: Track = no_progress,
) -> CheckReport:
    """Check annotations, features and sentences of a config's datasets, and its splits.

    Args:
        cfg (Config): With ``{train,val,test}_dataloader.dataset``; ``model.backbone.in_channels``,
            ``model.data_preprocessor.tokenizer`` and ``model.text_encoder`` are compared where
            the config has them.
        splits (Sequence[str], optional): Which of train, val, test. Defaults to all there are.
        quick (bool): See `SplitCheck`. Defaults to False.
        num_examples (int): Offenders named for each kind of finding. Defaults to 3.
        track (Callable): See `SplitCheck`.

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
    tokenizer, max_tokens = _language(model, partial(report.add, 'error', 'all'))
    video_ids, scanned = {}, {}
    for split in wanted:
        check = SplitCheck(report, split, in_channels, quick, track)
        video_ids[split] = set()
        for dataset in _datasets(cfg[f'{split}_dataloader']['dataset'], check.error):
            source = (tuple(dataset.feature_files), tuple(dataset.feature_keys))
            seen = scanned.setdefault(source, set())  # ActivityNet's val and test share videos
            if isinstance(dataset, TubeGroundingDataset):
                check.quick = quick or bool(seen)
                videos = check.tubes(dataset)
            else:
                videos = check.annotations(dataset.ann_file, not dataset.weak)
                check.features(*source, [video.video_id for video in videos], seen)
            seen.update(video.video_id for video in videos)
            video_ids[split].update(video.video_id for video in videos)
            if tokenizer is not None:
                check.sentences(videos, tokenizer, max_tokens)
            if not dataset.feature_files:
                check.error('no features', 'data_prefix.features is not set')
    check_splits(video_ids, report)
    return report


def _datasets(
    cfg: dict, error: Callable[[str, str], None]
) -> list[TemporalGroundingDataset | TubeGroundingDataset]:
    """The grounding datasets within a dataset config, which may be wrapped; nothing is loaded."""
    if 'datasets' in cfg:
        return [found for part in cfg['datasets'] for found in _datasets(part, error)]
    if 'dataset' in cfg:
        return _datasets(cfg['dataset'], error)
    try:
        dataset = DATASETS.build({**cfg, 'lazy_init': True, 'pipeline': []})
    except (KeyError, TypeError, ValueError) as mistake:
        error('dataset cannot be built', str(mistake.args[0]))
        return []
    if not isinstance(dataset, TemporalGroundingDataset | TubeGroundingDataset):
        kinds = 'neither a TemporalGroundingDataset nor a TubeGroundingDataset'
        error('dataset of another kind', f'{type(dataset).__name__} is {kinds}')
        return []
    return [dataset]


def _language(model: dict, error: Callable[[str, str], None]) -> tuple[Any, int | None]:
    """Tokenizer and token limit of the model; what cannot be had is said in the report."""
    from transformers import AutoConfig  # takes a second

    tokenizer_cfg = (model.get('data_preprocessor') or {}).get('tokenizer')
    if tokenizer_cfg is None:
        return None, None
    try:
        tokenizer = TOKENIZER.build(tokenizer_cfg)
    except (OSError, ValueError) as mistake:
        error('tokenizer cannot be built', str(mistake))
        return None, None
    encoder = model.get('text_encoder') or {}
    name, config = encoder.get('name_or_path'), encoder.get('config')
    if name is None and config is None:
        return tokenizer, None
    try:
        language_model = (
            AutoConfig.for_model(**config) if name is None else AutoConfig.from_pretrained(name)
        )
    except (OSError, ValueError, KeyError, TypeError) as mistake:
        error('language model not found', f'model.text_encoder: {str(mistake).splitlines()[0]}')
        return tokenizer, None
    vocab_size = getattr(language_model, 'vocab_size', None)
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        error(
            'tokenizer of another language model',
            f'model.data_preprocessor.tokenizer has {tokenizer.vocab_size} tokens, '
            f'model.text_encoder takes {vocab_size}; set both to the same language model',
        )
    return tokenizer, token_limit(language_model)
