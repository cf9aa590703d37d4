"""Made-up batches of a config's real shapes."""

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmn_plugin.structures import GroundingDataSample

from .annotation_statistics import AnnotationStatistics


class Workload:
    """Random features and sentences, as many and as long as the real ones; seeded.

    A batch of B videos has a typical number of sentences (the middles of B equal parts of all
    videos), so that one batch stands for all.

    Args:
        cfg (Config): With ``train_dataloader`` and ``test_dataloader``.
        split (str): ``'train'`` or ``'test'``.
        vocabulary (list[str]): Words to make sentences of, each one token.
        ann_file (str, optional): Annotation file to count in. Defaults to None: the config's.
        seed (int): Defaults to 0.
    """

    def __init__(
        self,
        cfg: Config,
        split: str,
        vocabulary: list[str],
        ann_file: str | None = None,
        seed: int = 0,
    ):
        self.loader = cfg[f'{split}_dataloader']
        self.statistics = AnnotationStatistics.of_dataset(self.loader.dataset, split, ann_file)
        self.num_segments = num_segments(self.loader.dataset.pipeline)
        self.feature_size = cfg.model.backbone.in_channels
        self.vocabulary = vocabulary
        self.seed = seed

    def batch(self, num_videos: int) -> dict:
        """As a data loader gives it: ``inputs``, B tensors (R, D), and ``data_samples``."""
        rng = np.random.default_rng(self.seed)
        counts = self.statistics.sentences_of(num_videos)
        generator = torch.Generator().manual_seed(self.seed)
        inputs = [
            torch.rand(self.num_segments, self.feature_size, generator=generator) for _ in counts
        ]
        samples = [self.sample(f'v{i}', count, rng) for i, count in enumerate(counts)]
        return dict(inputs=inputs, data_samples=samples)

    def sample(
        self, video_id: str, num_sentences: int, rng: np.random.Generator
    ) -> GroundingDataSample:
        """One video with sentences and ground truth."""
        duration = float(self.statistics.draw(self.statistics.seconds, 1, rng)[0])
        sample = GroundingDataSample(
            metainfo=dict(
                video_id=video_id,
                duration=duration,
                sentences=self.sentences(num_sentences, rng),
                sentence_index=list(range(num_sentences)),
            )
        )
        moments = np.sort(rng.random((num_sentences, 2)) * duration, axis=1)
        moments[:, 1] += 1e-3 * duration  # no moment is empty
        sample.gt_instances = InstanceData(moments=torch.from_numpy(moments).float())
        return sample

    def sentences(self, count: int, rng: np.random.Generator) -> list[str]:
        """Sentences of random words, as long as real ones."""
        tokens = self.statistics.draw(self.statistics.tokens, count, rng).round().astype(int)
        words = (rng.integers(len(self.vocabulary), size=max(1, number - 2)) for number in tokens)
        return [' '.join(self.vocabulary[word] for word in sentence) for sentence in words]


def num_segments(pipeline: list[dict]) -> int:
    """R of a pipeline.

    Raises:
        ValueError: If it has no ``PoolClipFeatures``.
    """
    for step in pipeline:
        if 'num_segments' in step:
            return step['num_segments']
    raise ValueError(
        'the pipeline of the config has no PoolClipFeatures with num_segments: the '
        'size of the inputs is not known'
    )
