"""A loss."""

from mmaction.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class SoftMatchingLoss(nn.Module):
    """Cross-entropy between a softmax over a video's moments and their IoU with the truth.

    Args:
        temperature (float): Divides the cosines. Defaults to 0.1.
        sharpness (float): Power of the IoU; a larger one rewards the best moments alone.
            Defaults to 4.
    """

    def __init__(self, temperature: float = 0.1, sharpness: float = 4.0):
        super().__init__()
        self.temperature = temperature
        self.sharpness = sharpness

    def forward(self, cosines: Tensor, iou: Tensor) -> Tensor:
        """Mean over the sentences.

        Args:
            cosines (Tensor): (S, P), of each sentence with the moments of its video.
            iou (Tensor): (S, P), of its true moment with them; 0 where it does not occur.
        """
        target = iou**self.sharpness
        target = target / target.sum(1, keepdim=True).clamp(min=1e-6)
        return -(target * (cosines / self.temperature).log_softmax(1)).sum(1).mean()
