"""One sentence of a timeline."""

from dataclasses import dataclass, field

import numpy as np
import torch

from mmn_plugin.structures import temporal_iou


@dataclass
class TimelineRow:
    """A sentence with its moments.

    Attributes:
        sentence (str): The sentence.
        truth (np.ndarray | None): (2,) start and end in seconds, None where unknown.
        moments (np.ndarray): (n, 2) predicted moments in seconds, best first.
        scores (np.ndarray): (n,).
        curve (np.ndarray | None): (K,) scores of K equal parts of the video, see `score_curve`;
            None where unknown.
    """

    sentence: str
    truth: np.ndarray | None = None
    moments: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curve: np.ndarray | None = None

    def iou(self) -> np.ndarray | None:
        """IoU of each predicted moment with the truth, (n,); None where it is unknown."""
        if self.truth is None:
            return None
        truth, moments = torch.as_tensor(self.truth), torch.as_tensor(self.moments)
        return temporal_iou(moments, truth.to(moments.dtype)).numpy()

    @classmethod
    def from_sample(
        cls, sample, top_n: int, truth: bool = True, predictions: bool = True, curves=None
    ) -> list['TimelineRow']:
        """Make the rows of a data sample.

        Args:
            sample (GroundingDataSample): With ``gt_instances``, ``pred_instances`` or both; a NaN
                moment counts as absent.
            top_n (int): Predicted moments per sentence.
            truth (bool): Whether to take the ground truth. Defaults to True.
            predictions (bool): Whether to take the predictions. Defaults to True.
            curves (Tensor | np.ndarray | None): (s, K), a score curve per sentence. Defaults to
                None.

        Raises:
            ValueError: If there is not one curve per sentence.
        """
        rows = [cls(sentence) for sentence in sample.sentences]
        if curves is not None:
            if len(curves) != len(rows):
                raise ValueError(
                    f'{len(rows)} sentences of video {sample.video_id} need as many '
                    f'score curves, not {len(curves)}'
                )
            for row, curve in zip(rows, _array(curves), strict=True):
                row.curve = curve
        if truth and 'gt_instances' in sample:
            for row, moment in zip(rows, _array(sample.gt_instances.moments), strict=True):
                row.truth = None if np.isnan(moment).any() else moment
        if predictions and 'pred_instances' in sample:
            found = _array(sample.pred_instances.moments), _array(sample.pred_instances.scores)
            for row, moments, scores in zip(rows, *found, strict=True):
                there = ~np.isnan(moments).any(-1)  # (n,)
                row.moments, row.scores = moments[there][:top_n], scores[there][:top_n]
        return rows


def _array(values) -> np.ndarray:
    return torch.as_tensor(values).detach().float().cpu().numpy()
