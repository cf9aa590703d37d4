"""A head: a loss, and one score from the cosines. Ranking and the rest come from the base."""

import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.models.heads import BaseHead
from mmn_plugin.structures import MomentGrid, VideoEmbedding


@MODELS.register_module()
class SoftMatchingHead(BaseHead):
    """Moments against sentences in one joint space, ``contrastive``.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        loss (dict): Config of the loss.
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
    """

    def __init__(self, grid: MomentGrid, loss: dict, nms_threshold: float, top_n: int = 5):
        super().__init__(grid, nms_threshold, top_n)
        self.moment_map = grid
        self.loss_moments = MODELS.build(loss)

    def loss(self, embeddings, sentences, sentence_video, data_samples) -> dict[str, Tensor]:
        """Losses of a batch, from (B, P, J) and (S, J) per space."""
        videos = VideoEmbedding.stack(self.split(embeddings, data_samples))
        counts = [len(sample.sentences) for sample in data_samples]
        cosines = self.cosines(videos, sentences, counts)['contrastive']  # (S, P)
        iou = torch.cat(
            [self.units.best_iou(s.windows, s.duration) for s in data_samples]
        )  # (S, P)
        return dict(loss_moments=self.loss_moments(cosines, iou.to(cosines.device)))

    def fuse(self, cosines: dict[str, Tensor], video: VideoEmbedding, counts=None) -> Tensor:
        """``(1 + cos) / 2``, (S, P)."""
        return (1 + cosines['contrastive']) / 2
