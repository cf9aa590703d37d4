"""Metric learning between the moments of tubes and sentences."""

import math

import torch
from mmaction.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TubeMatchingLoss(nn.Module):
    """Mutual matching on tubes, as the HC-STVG variant of MMN computes it.

    A sentence's positive is the cell of highest target over all tubes of its video. All arithmetic
    is over pairs (sentence, tube of the batch), so that a tube is never looked up by its place
    within its video: the published code does that, and thereby leaves out a wrong tube for every
    video but the batch's first. Here a video's loss does not depend on its place in the batch.

    Args:
        negative_iou (float): Cells of the positive's tube are negatives below this target.
        margin (float): Subtracted from a positive pair's similarity (m).
        temperature_video (float): Of the moment-to-sentences direction (t_v).
        temperature_sentence (float): Of the sentence-to-moments direction (t).
        mask_same_video (bool): Whether cells of the video's other tubes that reach
            ``negative_iou`` are left out of the sum, which the published loss does not do. Useful
            where several candidates follow the same person. Defaults to False, as published.
    """

    # Cells whose target is so close to the best count as the best.
    BEST_MARGIN = 1e-6
    LOG_EPSILON = math.log(1e-6)  # inside the published logarithm

    def __init__(
        self,
        negative_iou: float,
        margin: float,
        temperature_video: float,
        temperature_sentence: float,
        mask_same_video: bool = False,
    ):
        super().__init__()
        self.negative_iou = negative_iou
        self.margin = margin
        self.temperature_video = temperature_video
        self.temperature_sentence = temperature_sentence
        self.mask_same_video = mask_same_video

    def forward(
        self,
        moments: Tensor,
        sentences: Tensor,
        pair_sentence: Tensor,
        pair_tube: Tensor,
        target: Tensor,
        positives: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over the batch's sentences.

        Args:
            moments (Tensor): (T, P, J), L2-normalized, the tubes of all videos.
            sentences (Tensor): (S, J), L2-normalized.
            pair_sentence (Tensor): (Q,), a sentence for each pair of a sentence with a tube of its
                own video.
            pair_tube (Tensor): (Q,), the tube of the pair, as its place in the batch.
            target (Tensor): (Q, P), spatio-temporal IoU of the tube's cells with the sentence's
                ground truth.
            positives (Tensor): (S, 2), each sentence's positive: its pair and its cell.

        Returns:
            tuple[Tensor, Tensor]: Moment-to-sentences loss (``loss_vid``) and
            sentence-to-moments loss (``loss_sent``), scalars.
        """
        pair, cell = positives.unbind(1)
        moment = moments[pair_tube[pair], cell]  # (S, J)
        positive = (moment * sentences).sum(-1)  # (S,)
        loss_vid = self.moment_to_sentences(moment, sentences)
        similarity = torch.einsum('sj,tpj->stp', sentences, moments)  # (S, T, P)
        loss_sent = self.sentence_to_moments(
            similarity, positive, pair_sentence, pair_tube, target, pair
        )
        return loss_vid, loss_sent

    def moment_to_sentences(self, moment: Tensor, sentences: Tensor) -> Tensor:
        """Each sentence's positive moment, (S, J), against all sentences, (S, J)."""
        similarity = moment @ sentences.T  # (S, S)
        margin = self.margin * similarity.new_ones(len(sentences)).diag()
        logits = (similarity - margin) / self.temperature_video
        return (logits.logsumexp(1) - logits.diagonal()).mean()

    def sentence_to_moments(
        self,
        similarity: Tensor,
        positive: Tensor,
        pair_sentence: Tensor,
        pair_tube: Tensor,
        target: Tensor,
        pair: Tensor,
    ) -> Tensor:
        """Each sentence's positive against all cells of the batch.

        Quirks of the published loss, kept: the positive counts twice, alone and among its tube's
        cells; a cell there that is neither negative nor the best adds exp(0) = 1; where the best
        target is below ``negative_iou`` its similarity counts twice; cells of all other tubes are
        negatives, also those of the same video that overlap the ground truth.
        """
        logits = similarity / self.temperature_sentence  # (S, T, P)
        if self.mask_same_video:
            masked = torch.zeros_like(logits, dtype=torch.bool)
            masked[pair_sentence, pair_tube] = target >= self.negative_iou
            logits = logits.masked_fill(masked, -math.inf)
        row, tube = pair_sentence[pair], pair_tube[pair]  # (S,)
        own = self.own_tube_logits(similarity[row, tube], target[pair])  # (S, P)
        logits = logits.index_put((row, tube), own)
        alone = (positive - self.margin) / self.temperature_sentence  # (S,)
        parts = [alone, logits.flatten(1).logsumexp(1), torch.full_like(alone, self.LOG_EPSILON)]
        return (torch.stack(parts).logsumexp(0) - alone).mean()

    def own_tube_logits(self, similarity: Tensor, target: Tensor) -> Tensor:
        """Logits of the cells of the positive's own tube, (S, P) from (S, P) and (S, P)."""
        negative = (target < self.negative_iou).to(similarity)
        best = (target.amax(1, keepdim=True) - target <= self.BEST_MARGIN).to(similarity)
        return ((negative + best) * similarity - best * self.margin) / self.temperature_sentence
