"""One score per moment and sentence."""

from torch import Tensor


def moment_scores(contrastive: Tensor, iou_score: Tensor, power: float) -> Tensor:
    """Fuse the two spaces' scores: ``(0.5 * contrastive + 0.5) ** power * iou_score`` (MMN, test).

    Args:
        contrastive (Tensor): (S, P) cosines in the contrastive space.
        iou_score (Tensor): (S, P) in [0, 1], from the IoU space.
        power (float): Weight of the contrastive score.

    Returns:
        Tensor: (S, P) float32.
    """
    # A cosine may round to just below -1, of which no power exists.
    return (0.5 * contrastive.float() + 0.5).clamp(min=0) ** power * iou_score.float()
