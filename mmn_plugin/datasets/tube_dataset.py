"""Videos with tubes and sentences, one sample per video."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmaction.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.utils import is_abs

from mmn_plugin.errors import InputError

from .tube_file import TubeError, TubeFile


@DATASETS.register_module()
class TubeGroundingDataset(BaseDataset):
    """HC-STVG, or any corpus of tubes, from the HDF5 files that ``tools/data/`` makes.

    A sample is one video with its candidate tubes and all its sentences (one in HC-STVG). What is
    kept per video is strings; boxes and features are read by the pipeline.

    A video without candidate tubes teaches nothing: in training it is left out, with a warning. In
    test it stays, and its answer is empty, so that it counts as not found.

    Args:
        ann_file (str): Tube file (HDF5), relative to ``data_root``.
        streams (Sequence[str]): Names of the feature streams to join along D, in this order.
        data_root (str): Folder that relative paths start from. Defaults to ''.
        pipeline (list): Transforms. Defaults to none.
        test_mode (bool): Keep videos without tubes, and let a sample that the pipeline refuses be
            an error. Defaults to False.
        **kwargs: See `mmengine.dataset.BaseDataset`.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is no tube file, a stream is absent, streams differ in size between
            videos, or a video to train with has no ground truth.
    """

    METAINFO = dict(dataset_type='tube_grounding')

    def __init__(
        self,
        ann_file: str,
        streams: Sequence[str],
        data_root: str = '',
        pipeline: Sequence = (),
        test_mode: bool = False,
        **kwargs,
    ):
        if isinstance(streams, str) or not streams:
            raise InputError(f'streams={streams!r}: give a list with at least one name')
        self.streams = list(streams)
        self.feature_sizes: list[int] = []
        self.tube_version: tuple[int, ...] | None = None  # of the file, for the workers
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            # MMEngine would look them up in the default scope, which a script need not have set
            pipeline=[
                TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline
            ],
            test_mode=test_mode,
            **kwargs,
        )

    @property
    def feature_files(self) -> list[str]:
        """Paths of the files with features: the tube file."""
        return [self.ann_file]

    @property
    def feature_keys(self) -> list[None]:
        """Names of single features in each file: none."""
        return [None]

    @property
    def feature_size(self) -> int:
        """D of a sample, all streams together."""
        if not self._fully_initialized:
            self.full_init()
        return sum(self.feature_sizes)

    def load_data_list(self) -> list[dict]:
        """Sentences of all videos, after a look at the features' sizes."""
        file = TubeFile(self.ann_file)
        self.tube_version = file.version
        try:
            videos, without = [], []
            for video_id in file.video_ids():
                if file.num_tubes(video_id):
                    self._check_sizes(file, video_id)
                else:
                    without.append(video_id)
                    if not self.test_mode:
                        continue
                if not self.test_mode and not file.has_truth(video_id):
                    raise TubeError(
                        f'{self.ann_file}: video {video_id!r} has no ground truth to train with; '
                        'it is for tests (tools/test.py --submission)'
                    )
                sentences = file.sentences(video_id)
                videos.append(
                    dict(
                        video_id=video_id,
                        sentences=sentences,
                        sentence_index=list(range(len(sentences))),
                    )
                )
        finally:
            file.close()  # nothing stays open that a forked worker would inherit
        if len(videos) == len(without) * self.test_mode:
            raise TubeError(
                f'{self.ann_file} has no video with a candidate tube; run the tracker '
                'and convert its tubes'
            )
        self._tell(videos, without)
        return videos

    def _check_sizes(self, file: TubeFile, video_id: str) -> None:
        sizes = file.feature_sizes(video_id, self.streams)
        self.feature_sizes = self.feature_sizes or sizes
        if sizes != self.feature_sizes:
            raise TubeError(
                f'{file.path}: video {video_id!r} has streams {self.streams} of sizes {sizes}, '
                f'videos before it of {self.feature_sizes}; extract all with the same networks'
            )

    def _tell(self, videos: list[dict], without: list[str]) -> None:
        sentences = sum(len(video['sentences']) for video in videos)
        print_log(
            f'{self.ann_file}: {len(videos)} videos, {sentences} sentences', 'current', logging.INFO
        )
        if without:
            fate = 'count as not found' if self.test_mode else 'are left out'
            print_log(
                f'{self.ann_file}: {len(without)} videos without candidate tubes {fate}: '
                f'{", ".join(without[:5])}',
                'current',
                logging.WARNING,
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

    def _join_prefix(self) -> None:
        if self.ann_file and self.data_root and not is_abs(self.ann_file):
            self.ann_file = str(Path(self.data_root, self.ann_file))


def grounds_tubes(config: Config) -> bool:
    """Whether a config is of tubes and not of moments, by its datasets, which may be wrapped.

    The config of a saved folder is of moments: it keeps a pipeline without its dataset's type.
    """
    for split in ('test', 'val', 'train'):
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset')
        while dataset and ('dataset' in dataset or dataset.get('datasets')):
            dataset = dataset.get('dataset') or dataset['datasets'][0]
        if dataset:
            kind = dataset.get('type')
            kind = DATASETS.get(kind) if isinstance(kind, str) else kind
            return isinstance(kind, type) and issubclass(kind, TubeGroundingDataset)
    return False
