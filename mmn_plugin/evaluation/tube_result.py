"""What evaluation keeps of one video with tubes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from mmengine.structures import BaseDataElement

from mmn_plugin.structures import tube_iou


@dataclass
class TubeResult:
    """Answers to all sentences of one video.

    Attributes:
        video_id (str): The video.
        sentence_index (list[int]): s places in the annotation file's list.
        sentences (list[str]): s sentences.
        ground_truth (list[np.ndarray]): s true tubes; empty where they are not known.
        tubes (list[np.ndarray]): s predicted tubes (n, 5); n = 0 where there is no answer.
        bounds (list[dict]): What the candidates allow each sentence, see `tube_bounds`; empty where
            nobody asked.
    """

    video_id: str
    sentence_index: list[int]
    sentences: list[str]
    ground_truth: list[np.ndarray]
    tubes: list[np.ndarray]
    bounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def key(self) -> tuple:
        """Identity of the dataset item: the same item evaluated twice has the same key."""
        return self.video_id, tuple(self.sentence_index), tuple(self.sentences)

    @property
    def names(self) -> list[str]:
        """Name of each sentence in a submission: the video's, or ``video#index`` of several."""
        if len(self.sentences) == 1 and self.sentence_index == [0]:
            return [self.video_id]
        return [f'{self.video_id}#{index}' for index in self.sentence_index]

    def overlaps(self) -> list[tuple[float, float]]:
        """Both IoUs (vIoU, tIoU) of each sentence's answer."""
        return [
            tube_iou(tube, truth) for tube, truth in zip(self.tubes, self.ground_truth, strict=True)
        ]

    @staticmethod
    def by_name(results: Iterable['TubeResult'], kind: str) -> dict[str, np.ndarray]:
        """Tubes of all sentences by the names that a submission uses.

        Args:
            results (Iterable[TubeResult]): Videos.
            kind (str): Which tubes: ``'tubes'`` or ``'ground_truth'``.

        Raises:
            ValueError: If two sentences have one name, as those of the videos ``a`` (of several)
                and ``a#0``.
        """
        found = {}
        for result in results:
            for name, tube in zip(result.names, getattr(result, kind), strict=True):
                if name in found:
                    raise ValueError(
                        f'two sentences are {name!r} in a submission, of video '
                        f'{result.video_id!r} and of another; rename one video'
                    )
                found[name] = tube
        return found

    @classmethod
    def from_data_sample(cls, sample: dict | BaseDataElement) -> 'TubeResult':
        """Take what evaluation needs from a `TubeDataSample` (or that as a dict).

        Raises:
            ValueError: If there are no predictions, or not one for every sentence.
        """
        if isinstance(sample, BaseDataElement):
            sample = sample.to_dict()
        predicted = sample.get('pred_instances', {}).get('tubes')
        if predicted is None or len(predicted) != len(sample['sentences']):
            raise ValueError(
                f'video {sample.get("video_id")!r} reached the metric without a tube '
                'per sentence; it needs a TubeMatchingHead and mode="predict"'
            )
        return cls(
            video_id=sample['video_id'],
            sentence_index=[int(index) for index in sample['sentence_index']],
            sentences=list(sample['sentences']),
            ground_truth=list(sample.get('gt_instances', {}).get('tubes', [])),
            tubes=list(predicted),
        )
