"""What evaluation keeps of one video."""

from dataclasses import dataclass

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


@dataclass
class GroundingResult:
    """Ground truth and ranked moments of all sentences of one video, on the CPU.

    Attributes:
        video_id (str): The video.
        duration (float): Its length in seconds.
        sentence_index (list[int]): s places in the annotation file's list.
        sentences (list[str]): s sentences.
        ground_truth (Tensor): (s, 2) float32 seconds.
        moments (Tensor): (s, n, 2) float32 seconds, best first, NaN where fewer.
        scores (Tensor): (s, n) float32, NaN likewise.
    """

    video_id: str
    duration: float
    sentence_index: list[int]
    sentences: list[str]
    ground_truth: Tensor
    moments: Tensor
    scores: Tensor

    def __post_init__(self):
        num = len(self.sentences)
        shapes = {
            'sentence_index': (len(self.sentence_index), num),
            'ground truth': (tuple(self.ground_truth.shape), (num, 2)),
            'moments': (tuple(self.moments.shape), (num, *self.moments.shape[1:2], 2)),
            'scores': (tuple(self.scores.shape), tuple(self.moments.shape[:2])),
        }
        for name, (got, wanted) in shapes.items():
            if got != wanted:
                raise ValueError(
                    f'video {self.video_id!r} has {num} sentences, but its {name} '
                    f'have the shape {got} instead of {wanted}'
                )

    @property
    def key(self) -> tuple:
        """Identity of the dataset item: the same item evaluated twice has the same key."""
        return (self.video_id, tuple(self.sentence_index), tuple(self.sentences))

    @classmethod
    def from_data_sample(cls, sample: dict | BaseDataElement) -> 'GroundingResult':
        """Take what evaluation needs from a `GroundingDataSample` (or that as a dict).

        Raises:
            ValueError: If there are no predictions, or not one for every sentence.
        """
        if isinstance(sample, BaseDataElement):
            sample = sample.to_dict()
        if 'pred_instances' not in sample or 'gt_instances' not in sample:
            raise ValueError(
                f'video {sample.get("video_id")!r} reached the metric without '
                'pred_instances and gt_instances; run the model in mode="predict"'
            )
        prediction = sample['pred_instances']
        return cls(
            video_id=sample['video_id'],
            duration=float(sample['duration']),
            sentence_index=[int(index) for index in sample['sentence_index']],
            sentences=list(sample['sentences']),
            ground_truth=_plain(sample['gt_instances']['moments']),
            moments=_plain(prediction['moments']),
            scores=_plain(prediction['scores']),
        )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to('cpu', torch.float32)
