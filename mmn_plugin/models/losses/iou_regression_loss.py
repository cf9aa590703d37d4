"""Regression of moments' IoU with the sentence's ground truth."""

import torch.nn.functional as F
from mmaction.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class IoURegressionLoss(nn.Module):
    """Binary cross-entropy of the IoU score against the scaled IoU (2D-TAN, equation 2).

    The target is ``clamp((IoU - min_iou) / (max_iou - min_iou), 0, 1)``.

    Args:
        min_iou (float): IoU whose target is 0.
        max_iou (float): IoU whose target is 1.
    """

    def __init__(self, min_iou: float, max_iou: float):
        super().__init__()
        self.min_iou = min_iou
        self.max_iou = max_iou

    def forward(self, logits: Tensor, iou: Tensor) -> Tensor:
        """Mean over all sentences and moments.

        Args:
            logits (Tensor): (S, P), the IoU score before the sigmoid.
            iou (Tensor): (S, P), IoU of each moment with the sentence's ground truth.

        Returns:
            Tensor: Scalar.
        """
        target = ((iou - self.min_iou) / (self.max_iou - self.min_iou)).clamp(0, 1)
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))
