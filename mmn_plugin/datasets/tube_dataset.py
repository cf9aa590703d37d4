"""Videos with tubes and sentences, one sample per video."""

import logging
from collections.abc import Iterator, Sequence

from mmaction.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log

from mmn_plugin.errors import InputError

from .grounding_dataset import FeatureDataset
from .tube_file import TubeError, TubeFile


@DATASETS.register_module()
class TubeGroundingDataset(FeatureDataset):
    """HC-STVG, or any corpus of tubes, from the HDF5 files that ``tools/data/`` makes.

    A sample is one video with its candidate tubes and all its sentences (one in HC-STVG). What is
    kept per video is strings; boxes and features are read by the pipeline.

    A video without candidate tubes teaches nothing: in training it is left out, with a warning. In
    test it stays, and its answer is empty, so that it counts as not found.

    Args:
        ann_file (str): Tube file (HDF5), relative to ``data_root``.
        streams (Sequence[str]): Names of the feature streams to join along D, in this order.
        data_root (str): Folder that relative paths start from. Defaults to ''.
        **kwargs: ``pipeline``, ``test_mode`` (keep videos without tubes, and let a sample that the
            pipeline refuses be an error) and so on, see `mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is no tube file, a stream is absent, streams differ in size between
            videos, or a video to train with has no ground truth.
    """

    METAINFO = dict(dataset_type='tube_grounding')

    def __init__(self, ann_file: str, streams: Sequence[str], data_root: str = '', **kwargs):
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


def single_configs(cfg: dict) -> Iterator[dict]:
    """The configs of datasets within one that may wrap others, such as RepeatDataset's."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if cfg.get('dataset') else [])
    for part in inner:
        yield from single_configs(part)
    if not inner:
        yield cfg


def grounds_tubes(config: Config) -> bool:
    """Whether a config is of tubes and not of moments, by its datasets, which may be wrapped.

    The config of a saved folder is of moments: it keeps a pipeline without its dataset's type.
    """
    for split in ('test', 'val', 'train'):
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset')
        if dataset:
            kind = next(single_configs(dataset), {}).get('type')
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            return isinstance(kind, type) and issubclass(kind, TubeGroundingDataset)
    return False
