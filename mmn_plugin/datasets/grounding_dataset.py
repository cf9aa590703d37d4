"""Videos with sentences about moments or tubes, one sample per video."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmaction.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, pseudo_collate
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS
from mmengine.utils import is_abs
from torch.utils.data import default_collate

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.structures.annotations import (
    VideoAnnotation,
    absent_sentences,
    load_annotation_file,
    parse_video,
)

from .feature_store import FeatureError, describe_folder, open_feature_store
from .tube_file import TubeError, TubeFile


@FUNCTIONS.register_module()
def stack_videos(batch: Sequence[dict]) -> dict:
    """MMEngine's ``pseudo_collate``, but with ``inputs`` as one tensor (B, R, D).

    Each tensor that a worker hands over costs the receiver a connection, half a millisecond. Inputs
    of different shapes stay a list, which the data preprocessor refuses by the videos' names.
    PyTorch's own function stacks where a worker hands them over from, so they are copied once.
    """
    batch = pseudo_collate(batch)
    if len({tuple(features.shape) for features in batch['inputs']}) == 1:
        batch['inputs'] = default_collate(list(batch['inputs']))  # (B, R, D)
    return batch


class FeatureDataset(BaseDataset):
    """What the datasets of moments and of tubes share.

    Args:
        pipeline (list): Transforms. Defaults to none.
        **kwargs: See `mmengine.dataset.BaseDataset`.

    Attributes:
        feature_sizes (list[int]): D of each feature file or stream, known once data are loaded.
    """

    def __init__(self, pipeline: Sequence = (), **kwargs):
        self.feature_sizes: list[int] = []
        # MMEngine would look them up in the default scope, which a script need not have set
        steps = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline]
        super().__init__(pipeline=steps, **kwargs)

    @property
    def feature_size(self) -> int:
        """D of a sample, all files or streams together; 0 for a dataset without features."""
        if not self._fully_initialized:
            self.full_init()
        return sum(self.feature_sizes)

    def _tell_size(self, data_list: list[dict]) -> None:
        sentences = sum(len(entry['sentences']) for entry in data_list)
        message = f'{self.ann_file}: {len(data_list)} videos, {sentences} sentences'
        print_log(message, logger='current', level=logging.INFO)

    def _join_prefix(self) -> None:
        """Join ``data_root`` with the paths; unlike MMEngine's, a prefix may be a list."""

        def join(path: str | bytes | os.PathLike) -> str:
            path = os.fsdecode(path)
            return path if is_abs(path) or not self.data_root else str(Path(root, path))

        root = os.fsdecode(self.data_root or '')
        if self.ann_file:
            self.ann_file = join(self.ann_file)
        for name, prefix in self.data_prefix.items():
            single = isinstance(prefix, str | bytes | os.PathLike)
            self.data_prefix[name] = join(prefix) if single else [join(path) for path in prefix]


@DATASETS.register_module()
class TemporalGroundingDataset(FeatureDataset):
    """TACoS, Charades-STA, ActivityNet Captions, or any corpus in their published JSON format.

    A sample is one video with all its sentences. The annotation file maps a video's id to
    ``timestamps`` and ``sentences``, and to ``duration`` (times in seconds) or ``fps`` and
    ``num_frames`` (times in frames); `mmn_plugin.structures.annotations` has the rules. What is
    kept per video is strings, seconds and the versions of its feature files, serialized; features
    are read by the pipeline. A feature file that changes afterwards is an error when it is read.

    When the dataset is built, the videos are looked up in the listing of every feature file, and
    the first one's entry is opened, so that a wrong file or key ends here and not within an epoch.

    Args:
        ann_file (str | Path): Annotation file, relative to ``data_root``.
        data_root (str | Path | None): Folder that relative paths start from. Defaults to ''.
        data_prefix (dict): ``features``: an HDF5 file or a folder of ``.npy``, ``.npz`` or ``.pt``
            files, or a list of several whose features are joined along D (see `LoadClipFeatures`).
            Without it the dataset holds sentences alone. Defaults to no features.
        feature_key (str | list, optional): Name of the features within a video's entry
            (ActivityNet: ``'c3d_features'``), one for all files or one each. Defaults to None:
            the entry is the array.
        weak (bool): Weakly supervised training: learn when from which sentence belongs to which
            video alone. ``timestamps`` are not read, need not be in the file, and drop no sentence,
            but for [], a sentence that does not occur in the video: it is left out, with a warning;
            neither the entries nor the samples hold ``windows`` or ground truth. Defaults to False.
        corpus (str, optional): Name of the corpus, of several in a `JointDataset`. Entries and
            samples then have it as ``corpus``, and their ``video_id`` is ``CORPUS/ID``, so that two
            corpora may use the same id; annotations and feature files have the id alone. Defaults
            to None.
        row_seconds (float, optional): Seconds that a row of the features covers, where they came at
            one rate whatever the length of a video. Files are then cut to the shortest of them, and
            rows to the video's duration, see `fit_rows`. Defaults to None: each file's rows cover
            the whole video.
        **kwargs: ``pipeline``, ``test_mode`` (a sample that the pipeline refuses is an error rather
            than replaced) and so on, see `mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the annotation file or a feature file does not exist; the message
            lists what is there.
        AnnotationError: If the annotations cannot be used.
        FeatureError: If a feature file is damaged, or videos are absent from it.
    """

    METAINFO = dict(dataset_type='temporal_grounding')
    submission: str | None = None  # metric that writes answers as a challenge takes them

    def __init__(
        self,
        ann_file: str | Path,
        data_root: str | Path | None = '',
        data_prefix: dict | None = None,
        feature_key: str | Sequence[str | None] | None = None,
        weak: bool = False,
        corpus: str | None = None,
        row_seconds: float | None = None,
        **kwargs,
    ):
        # GroundingMetric has groups of the two names
        if corpus is not None and not re.fullmatch(r'(?!(mean|chance)$)[\w-]+', str(corpus)):
            raise InputError(
                f'corpus={corpus!r}: give a name of letters, digits, "_" and "-", not "mean" or '
                '"chance"'
            )
        self.feature_key = feature_key
        if row_seconds is not None and not row_seconds > 0:
            raise InputError(f'row_seconds={row_seconds}; it must be above 0, or None')
        self.weak = weak
        self.corpus = corpus
        self.row_seconds = row_seconds
        data_prefix = dict(data_prefix or {})
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix, **kwargs)

    @property
    def feature_files(self) -> list[str]:
        """Paths of the feature files; empty where the dataset has none."""
        files = self.data_prefix.get('features') or []
        return [files] if isinstance(files, str) else list(files)

    @property
    def feature_keys(self) -> list[str | None]:
        """One key (or None) per feature file."""
        if self.feature_key is None or isinstance(self.feature_key, str):
            return [self.feature_key] * len(self.feature_files)
        if len(self.feature_key) != len(self.feature_files):
            raise InputError(
                f'feature_key={list(self.feature_key)} has {len(self.feature_key)} entries for '
                f'{len(self.feature_files)} feature files; give one for all, or one for each'
            )
        return list(self.feature_key)

    def load_data_list(self) -> list[dict]:
        """Annotations of all videos, checked against the features."""
        if not Path(self.ann_file).is_file():
            raise MissingFileError(
                f'annotation file {self.ann_file} does not exist; correct data_root or ann_file in '
                f'the config, or see tools/data/. {describe_folder(self.ann_file)}'
            )
        data_list = [dict(vars(video)) for video in self.read_videos()]
        if not data_list:
            why = 'there is none' if self.weak else 'every one has start >= end'
            raise InputError(
                f'{self.ann_file} has no usable sentence: {why}. Run `mmn check` on the config'
            )
        for entry in data_list:
            if self.weak or entry['windows'] is None:  # samples without truth
                del entry['windows']
        if self.feature_files:
            self._check_features(data_list)
        for entry in data_list if self.corpus else ():
            stored_id = entry['video_id']
            video_id = f'{self.corpus}/{stored_id}'
            entry.update(corpus=self.corpus, stored_id=stored_id, video_id=video_id)
        self._tell_size(data_list)
        return data_list

    def read_videos(self) -> list[VideoAnnotation]:
        """Usable sentences of all videos, of those that have any.

        A dataset of annotations in another format overrides `load_entries`, or all of this.

        Raises:
            AnnotationError: If the annotations cannot be used.
        """
        entries = self.load_entries()
        videos = [self.parse_entry(self.ann_file, *item) for item in entries.items()]
        weak = entries.values() if self.weak else ()
        if left_out := sum(len(absent_sentences(entry)) for entry in weak):
            print_log(
                f'{self.ann_file}: {left_out} sentences that do not occur in their video '
                '(timestamp []) are left out; where [] means that a moment is not known, '
                'remove "timestamps"',
                'current',
                logging.WARNING,
            )
        return [video for video in videos if video.sentences]

    def load_entries(self) -> dict[str, dict]:
        """Entries of all videos by id, as of the published format; see `load_annotation_file`."""
        return load_annotation_file(self.ann_file)

    def parse_entry(
        self, path: str | Path, video_id: str, entry: dict, flaws: list | None = None
    ) -> VideoAnnotation:
        """A video with its usable sentences, perhaps none; args as of `parse_video`."""
        return parse_video(path, video_id, entry, not self.weak, flaws, not self.weak)

    def get_data_info(self, idx: int) -> dict:
        """One video's annotation, and where its features are."""
        info = super().get_data_info(idx)
        if self.feature_files:
            info.update(
                feature_files=self.feature_files,
                feature_keys=self.feature_keys,
                feature_sizes=self.feature_sizes,
                row_seconds=self.row_seconds,
            )
        return info

    def _check_features(self, data_list: list[dict]) -> None:
        """Look the videos up, and note in their entries the versions that all workers expect."""
        self.feature_sizes, video_ids = [], [entry['video_id'] for entry in data_list]
        for path, key in zip(self.feature_files, self.feature_keys, strict=True):
            store = open_feature_store(path, key)
            try:
                self._check_present(video_ids, store.video_ids(), path)
                shape = store.shape(video_ids[0])
                store.check_shape(video_ids[0], shape)
                self.feature_sizes.append(int(shape[1]))
                for entry in data_list:
                    version = store.video_version(entry['video_id'])
                    entry.setdefault('feature_versions', []).append(version)
            finally:
                store.close()  # nothing stays open that a forked worker would inherit

    def _check_present(self, video_ids: list[str], available: set[str], path: str) -> None:
        missing = [video_id for video_id in video_ids if video_id not in available]
        if not missing:
            return
        shown = ', '.join(missing[:5]) + (', ...' if len(missing) > 5 else '')
        there = ', '.join(sorted(available)[:3]) or 'nothing'
        raise FeatureError(
            f'{path}: {len(missing)} of the {len(video_ids)} videos in {self.ann_file} are absent: '
            f'{shown}. The file holds {len(available)} videos ({there}, ...). Extract the missing '
            'ones or remove them from the annotations; `mmn check` lists them all'
        )


@DATASETS.register_module()
class TubeGroundingDataset(FeatureDataset):
    """HC-STVG, or any corpus of tubes, from the HDF5 files that ``tools/data/`` makes.

    A sample is one video with its candidate tubes and all its sentences (one in HC-STVG). What is
    kept per video is strings; boxes and features are read by the pipeline.

    A video without candidate tubes teaches nothing: in training it is left out, with a warning. In
    test it stays, and its answer is empty, so that it counts as not found.

    Args:
        ann_file (str | Path): Tube file (HDF5), relative to ``data_root``.
        streams (Sequence[str]): Names of the feature streams to join along D, in this order.
        data_root (str | Path | None): Folder that relative paths start from. Defaults to ''.
        **kwargs: ``pipeline``, ``test_mode`` (keep videos without tubes, and let a sample that the
            pipeline refuses be an error) and so on, see `mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is no tube file, a stream is absent, streams differ in size between
            videos, or a video to train with has no ground truth.
    """

    METAINFO = dict(dataset_type='tube_grounding')
    submission = 'DumpTubeSubmission'

    def __init__(
        self,
        ann_file: str | Path,
        streams: Sequence[str],
        data_root: str | Path | None = '',
        **kwargs,
    ):
        if isinstance(streams, str) or not streams:
            raise InputError(f'streams={streams!r}: give a list with at least one name')
        self.streams = list(streams)
        self.tube_version: tuple[int, ...] | None = None  # of the file, for the workers
        super().__init__(ann_file=ann_file, data_root=data_root, **kwargs)

    @property
    def feature_files(self) -> list[str]:
        """Paths of the files with features: the tube file."""
        return [self.ann_file]

    @property
    def feature_keys(self) -> list[None]:
        """Names of single features in each file: none."""
        return [None]

    def load_data_list(self) -> list[dict]:
        """Sentences of all videos, after a look at the features' sizes."""
        file = TubeFile(self.ann_file)
        self.tube_version = file.version
        try:
            with_tubes = [name for name in file.video_ids() if file.num_tubes(name)]
            without = sorted({*file.video_ids()} - {*with_tubes})
            for video_id in with_tubes:
                self._check_sizes(file, video_id)
                if not self.test_mode and not file.has_truth(video_id):
                    raise TubeError(
                        f'{self.ann_file}: video {video_id!r} has no ground truth to train with; '
                        'it is for tests (tools/test.py --submission)'
                    )
            if not with_tubes:
                raise TubeError(
                    f'{self.ann_file} has no video with a candidate tube; run the tracker '
                    'and convert its tubes'
                )
            videos = []
            for video_id in file.video_ids() if self.test_mode else with_tubes:
                texts = file.sentences(video_id)
                index = list(range(len(texts)))
                videos.append(dict(video_id=video_id, sentences=texts, sentence_index=index))
        finally:
            file.close()  # nothing stays open that a forked worker would inherit
        self._tell_size(videos)
        if without:
            fate = 'count as not found' if self.test_mode else 'are left out'
            print_log(
                f'{self.ann_file}: {len(without)} videos without candidate tubes {fate}: '
                f'{", ".join(without[:5])}',
                'current',
                logging.WARNING,
            )
        return videos

    def _check_sizes(self, file: TubeFile, video_id: str) -> None:
        sizes = file.feature_sizes(video_id, self.streams)
        self.feature_sizes = self.feature_sizes or sizes
        if sizes != self.feature_sizes:
            raise TubeError(
                f'{file.path}: video {video_id!r} has streams {self.streams} of sizes {sizes}, '
                f'videos before it of {self.feature_sizes}; extract all with the same networks'
            )

    def get_data_info(self, idx: int) -> dict:
        """One video's sentences, and where its tubes are."""
        info = super().get_data_info(idx)
        info.update(
            tube_file=self.ann_file,
            tube_version=self.tube_version,
            streams=self.streams,
            feature_sizes=self.feature_sizes,
        )
        return info


@DATASETS.register_module()
class JointDataset(ConcatDataset):
    """Several corpora one after another, told apart by their names.

    Unlike MMEngine's ``ConcatDataset`` it builds its datasets in any default scope, and needs names
    that keep videos of the same id apart.

    Args:
        datasets (Sequence): Datasets or their configs, each with a ``corpus`` (see
            `TemporalGroundingDataset`); several may have the same one.
        **kwargs: See `mmengine.dataset.ConcatDataset`.

    Raises:
        ValueError: If a dataset has no corpus.
    """

    def __init__(self, datasets: Sequence, **kwargs):
        built = [DATASETS.build(part) if isinstance(part, dict) else part for part in datasets]
        for part in built:
            if not getattr(part, 'corpus', None):
                raise InputError(
                    f'JointDataset: the dataset of {getattr(part, "ann_file", part)} has no '
                    'corpus; set it in its entry of `datasets`'
                )
        super().__init__(built, **kwargs)


def single_configs(cfg: dict) -> Iterator[dict]:
    """The configs of datasets within one that may wrap others, such as RepeatDataset's."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if cfg.get('dataset') else [])
    for part in inner:
        yield from single_configs(part)
    if not inner:
        yield cfg


def dataset_class(config: Config) -> type | None:
    """Class of a config's datasets, which may be wrapped; None where it is not registered."""
    for split in ('test', 'val', 'train'):
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset')
        if dataset:
            kind = next(single_configs(dataset), {}).get('type')
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            return kind if isinstance(kind, type) else None
    return None


def grounds_tubes(config: Config) -> bool:
    """Whether a config is of tubes and not of moments.

    The config of a saved folder is of moments: it keeps a pipeline without its dataset's type.
    """
    kind = dataset_class(config)
    return kind is not None and issubclass(kind, TubeGroundingDataset)
