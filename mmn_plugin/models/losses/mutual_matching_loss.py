"""Metric learning between moments and sentences, with negatives within and across videos."""
import math

import torch
from mmaction.registry import MODELS
from torch import Tensor, nn

from mmn_plugin.structures import temporal_iou


@MODELS.register_module()
class MutualMatchingLoss(nn.Module):
    """Mutual matching (MMN, section "Mutual matching", equations 5 to 7).

    Two cross-entropies over cosine similarities: a positive moment must find its sentence among
    all sentences of the batch (inter-video and intra-video negative sentences), and a sentence
    its positive moments among all moments of the batch.

    Args:
        num_positive (int): Moments of highest IoU that are a sentence's positives.
        negative_iou (float): Moments of the sentence's own video are negatives below this IoU.
        sentence_removal_iou (float): A sentence of the same video whose ground truth overlaps
            this one's by at least this IoU is no negative.
        margin (float): Subtracted from a positive pair's similarity (m).
        temperature_video (float): Of the moment-to-sentences direction (t_v).
        temperature_sentence (float): Of the sentence-to-moments direction (t_s).
    """

    # The published code adds this inside the logarithm of the sentence-to-moments direction.
    LOG_EPSILON = math.log(1e-6)

    def __init__(self, num_positive: int, negative_iou: float, sentence_removal_iou: float,
                 margin: float, temperature_video: float, temperature_sentence: float):
        super().__init__()
        self.num_positive = num_positive
        self.negative_iou = negative_iou
        self.sentence_removal_iou = sentence_removal_iou
        self.margin = margin
        self.temperature_video = temperature_video
        self.temperature_sentence = temperature_sentence

    def forward(self, moments: Tensor, sentences: Tensor, sentence_video: Tensor, iou: Tensor,
                ground_truth: Tensor) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over sentences and positives.

        Args:
            moments (Tensor): (B, P, J), L2-normalised.
            sentences (Tensor): (S, J), L2-normalised.
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            iou (Tensor): (S, P), IoU of the moments of its video with a sentence's ground truth.
            ground_truth (Tensor): (S, 2), seconds.

        Returns:
            tuple[Tensor, Tensor]: Moment-to-sentences loss (``loss_vid``) and
            sentence-to-moments loss (``loss_sent``), scalars.
        """
        # On the CPU, because ties are resolved there as in the published figures.
        positives = iou.cpu().topk(self.num_positive, dim=1).indices.to(iou.device)  # (S, K)
        positive_moments = moments[sentence_video[:, None], positives]  # (S, K, J)
        positive = (positive_moments * sentences[:, None]).sum(-1)  # (S, K)
        loss_vid = self.moment_to_sentences(
            positive_moments, sentences, positive, self.is_negative_sentence(
                sentence_video, ground_truth))
        loss_sent = self.sentence_to_moments(moments, sentences, positive, sentence_video, iou)
        return loss_vid, loss_sent

    def is_negative_sentence(self, sentence_video: Tensor, ground_truth: Tensor) -> Tensor:
        """(S, S) bool: all sentences but oneself and those of the same video that overlap."""
        overlap = temporal_iou(ground_truth[:, None], ground_truth[None])
        same_video = sentence_video[:, None] == sentence_video[None]
        return ~(same_video & (overlap >= self.sentence_removal_iou)
                 | torch.eye(len(overlap), dtype=torch.bool, device=overlap.device))

    def moment_to_sentences(self, positive_moments: Tensor, sentences: Tensor, positive: Tensor,
                            is_negative: Tensor) -> Tensor:
        """Each positive moment against all sentences."""
        similarity = positive_moments @ sentences.T  # (S, K, S)
        negatives = (similarity / self.temperature_video).masked_fill(
            ~is_negative[:, None], -math.inf).logsumexp(-1)  # (S, K)
        logit = (positive - self.margin) / self.temperature_video
        return (torch.logaddexp(logit, negatives) - logit).mean()

    def sentence_to_moments(self, moments: Tensor, sentences: Tensor, positive: Tensor,
                            sentence_video: Tensor, iou: Tensor) -> Tensor:
        """Each sentence's positive moments against all moments of the batch."""
        logits = torch.einsum('sj,bpj->sbp', sentences, moments) / self.temperature_sentence
        # Published quirk: an own-video moment that is no negative is multiplied by 0, so it still
        # adds exp(0) = 1.
        own = sentence_video[:, None] == torch.arange(len(moments), device=moments.device)
        masked = own[..., None] & (iou >= self.negative_iou)[:, None]  # (S, B, P)
        negatives = logits.masked_fill(masked, 0.).flatten(1).logsumexp(1)  # (S,)
        negatives = torch.logaddexp(negatives, negatives.new_tensor(self.LOG_EPSILON))
        logit = (positive - self.margin) / self.temperature_sentence  # (S, K)
        return (torch.logaddexp(logit, negatives[:, None]) - logit).mean()
