"""What of a model a video goes through."""

from torch import Tensor, nn


class VideoSide(nn.Module):
    """Pooled features to unit embeddings of all moments.

    Args:
        model (nn.Module): An ``MMN``, in evaluation mode, whose moment encoder computes densely.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.neck, self.normalise = model.backbone, model.neck, model.head.normalise

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, D) -> ``contrastive`` and ``iou``, both (B, P, J)."""
        moments = self.normalise(self.neck(self.backbone(features)))
        return moments['contrastive'], moments['iou']
