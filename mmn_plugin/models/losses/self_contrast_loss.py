"""Losses of the weakly-supervised method: video matching and self-contrast."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import Candidates, Negatives, Pairs, on
from mmn_plugin.models.ranking import relative_threshold


@MODELS.register_module()
class VideoMatchingLoss(nn.Module):
    """Mutual matching of whole videos and sentences.

    A video's score for a sentence is a soft top-k pooling of its clips' cosines: the mean of the
    ``top_share`` best, weighted by their softmax. A sentence must find its video among all videos,
    and a video each of its sentences among those of all other videos; the video's other sentences
    are no negatives. Both are cross-entropies, as in MMN, over the batch and whatever other videos
    ``negatives`` brings.

    A batch of one video without further negatives gives 0, with a gradient of 0.

    Args:
        temperature (float): Divisor of the pooled cosines.
        top_share (float): Share of the clips that is pooled, in (0, 1]; at least one clip is.
        pooling_temperature (float): Of the softmax within them. Defaults to 0.1.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(self, temperature: float, top_share: float, pooling_temperature: float = 0.1):
        super().__init__()
        if not (0 < top_share <= 1 and temperature > 0 and pooling_temperature > 0):
            raise InputError(
                f'loss_matching: top_share={top_share}, temperature={temperature}, '
                f'pooling_temperature={pooling_temperature}; give a share above 0, up to 1, and '
                'temperatures above 0'
            )
        self.temperature = temperature
        self.top_share = top_share
        self.pooling_temperature = pooling_temperature

    def forward(self, own: Candidates, negatives: Negatives) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over the batch's sentences.

        Args:
            own (Candidates): The batch; its moments are clips (B, N, J).
            negatives (Negatives): What to compare with, the batch among it.

        Returns:
            tuple[Tensor, Tensor]: Video-to-sentences loss (``loss_vid``) and sentence-to-videos
            loss (``loss_sent``), scalars.
        """
        clips, sentences = own.moments, own.sentences
        video = on(own.sentence_video, clips.device)  # (S,)
        positive = self.logits(_cosines(sentences, clips[video]))  # (S,)
        candidates = negatives.candidates
        of_videos = self.logits(_all_cosines(sentences, candidates.moments))  # (S, V)
        of_sentences = self.logits(_all_cosines(candidates.sentences, clips)).T[video]  # (S, S')
        if negatives.log_weight is not None:
            of_videos = of_videos + negatives.log_weight
            of_sentences = of_sentences + negatives.sentence_log_weight()
        of_videos = _without(of_videos, negatives.excluded_videos())
        of_sentences = _without(of_sentences, negatives.excluded_sentences())
        others = of_sentences.logsumexp(1), of_videos.logsumexp(1)
        return tuple((torch.logaddexp(positive, other) - positive).mean() for other in others)

    def logits(self, cosines: Tensor) -> Tensor:
        """Soft top-k pooling over the clips, and the temperature: (..., N) -> (...)."""
        count = max(1, round(self.top_share * cosines.shape[-1]))
        best = cosines.topk(count, dim=-1).values  # (..., k)
        pooled = (best * (best / self.pooling_temperature).softmax(-1)).sum(-1)
        return pooled / self.temperature


def _all_cosines(sentences: Tensor, clips: Tensor) -> Tensor:
    """(S, J) with (V, N, J) -> (S, V, N)."""
    return (sentences @ clips.flatten(0, 1).T).unflatten(1, clips.shape[:2])


def _without(logits: Tensor, pairs: Pairs) -> Tensor:
    """Logits (S, M) without those of some pairs, which get no gradient either."""
    mask = np.zeros(tuple(logits.shape), dtype=bool)
    mask[pairs] = True
    return logits.masked_fill(on(mask, logits.device), -math.inf)


@MODELS.register_module()
class SelfContrastLoss(nn.Module):
    """InfoNCE within a video between what a sentence seems to describe and what it does not.

    Clips are averaged over windows. Those that the stage before scores above one adaptive threshold
    are foreground, those below another are background, and what lies between is neither; the
    decision has no gradient. The prototype is the mean of the foreground, detached. Hard negatives
    are the ``num_hard`` background windows nearest to the prototype and those at the background's
    boundary. Every foreground window takes part in up to three InfoNCE:

    - the sentence shall be nearer to it than to the hard negatives;
    - it shall be nearer to the sentence than to those of the video's other sentences, of another
      text, whose foreground has it not (``sentence_weight``);
    - it shall be nearer to the prototype than to the hard negatives (``prototype_weight``).

    A sentence without a hard negative (a video no longer than a window, or one whose windows all
    score alike) adds 0 to the first and the last, and one without other sentences to the second.

    Args:
        temperature (float): Divisor of the cosines.
        threshold (float): In (0, 1): how far between a video's lowest and highest score the
            foreground begins.
        num_hard (int | None): Hard negatives per sentence, beside those at the boundary (M). None
            takes the whole background.
        background (float | None): Likewise where the background ends, at most ``threshold``. None,
            the default, is ``threshold``.
        sentence_weight (float): Weight of the second InfoNCE; the first one has 1. Defaults to 0.
        prototype_weight (float): Weight of the third. Defaults to 0.

    Raises:
        ValueError: If a value is out of range.
    """

    def __init__(
        self,
        temperature: float,
        threshold: float,
        num_hard: int | None,
        background: float | None = None,
        sentence_weight: float = 0.0,
        prototype_weight: float = 0.0,
    ):
        super().__init__()
        background = threshold if background is None else background
        is_count = num_hard is None or (isinstance(num_hard, int) and num_hard >= 0)
        weights = sentence_weight >= 0 and prototype_weight >= 0
        if not (temperature > 0 and 0 < background <= threshold < 1 and is_count and weights):
            raise InputError(
                f'loss_contrast: temperature={temperature}, threshold={threshold}, background='
                f'{background}, num_hard={num_hard}, sentence_weight={sentence_weight}, '
                f'prototype_weight={prototype_weight}; give a temperature above 0, a threshold '
                'between 0 and 1, a background above 0 and at most the threshold, a number of '
                'windows or None, and weights not below 0'
            )
        self.temperature = temperature
        self.background = background
        self.threshold = threshold
        self.num_hard = num_hard
        self.sentence_weight = sentence_weight
        self.prototype_weight = prototype_weight

    def forward(
        self,
        scoring: Tensor,
        clips: Tensor,
        sentences: Tensor,
        sentence_video: Tensor,
        sentence_text: Tensor,
        window: int,
    ) -> Tensor:
        """Mean over all S sentences.

        Args:
            scoring (Tensor): (B, N, J) clips as the stage before refined them; they say what is
                foreground.
            clips (Tensor): (B, N, J) clips as this stage refines them; they learn.
            sentences (Tensor): (S, J), L2-normalized.
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            sentence_text (Tensor): (S,) integers, the same for the same text.
            window (int): Clips per window.

        Returns:
            Tensor: Scalar.
        """
        with torch.no_grad():
            scores = _cosines(sentences, self.windows(scoring, window)[sentence_video])
            foreground = scores >= relative_threshold(scores, self.threshold)  # (S, W)
            background = scores < relative_threshold(scores, self.background)
        windows = self.windows(clips, window)[sentence_video]  # (S, W, J)
        with torch.no_grad():
            prototype = F.normalize((windows * foreground[..., None]).sum(1), dim=-1)  # (S, J)
            hard = self.hard_negatives(_cosines(prototype, windows), background)  # (S, W)
        of_sentence = _cosines(sentences, windows)  # (S, W)
        loss = self._info_nce(of_sentence, of_sentence[:, None], hard[:, None])
        if self.sentence_weight:
            others = sentence_video[:, None] == sentence_video
            others = others & (sentence_text[:, None] != sentence_text)  # (S, S)
            loss = loss + self.sentence_weight * self._info_nce(
                of_sentence, windows @ sentences.T, others[:, None] & ~foreground.T
            )
        if self.prototype_weight:
            between = windows @ windows.transpose(1, 2)  # (S, W, W)
            loss = loss + self.prototype_weight * self._info_nce(
                _cosines(prototype, windows), between, hard[:, None]
            )
        return ((loss * foreground).sum(1) / foreground.sum(1)).mean()

    @staticmethod
    def windows(clips: Tensor, window: int) -> Tensor:
        """Means over windows, L2-normalized: (B, N, J) -> (B, ceil(N / window), J)."""
        if window > 1:
            clips = F.avg_pool1d(clips.transpose(1, 2), window, ceil_mode=True).transpose(1, 2)
        return F.normalize(clips, dim=-1)

    def hard_negatives(self, nearness: Tensor, background: Tensor) -> Tensor:
        """Which windows are hard negatives, (S, W) bool.

        Args:
            nearness (Tensor): (S, W), cosine of each window with the foreground's prototype.
            background (Tensor): (S, W) bool.
        """
        if self.num_hard is None:
            return background
        count = min(self.num_hard, nearness.shape[1])
        nearest = nearness.masked_fill(~background, -math.inf).topk(count, dim=1).indices
        hard = torch.zeros_like(background).scatter_(1, nearest, True)
        hard[:, 1:] |= ~background[:, :-1]
        hard[:, :-1] |= ~background[:, 1:]
        return hard & background

    def _info_nce(self, positive: Tensor, negative: Tensor, mask: Tensor) -> Tensor:
        """Per window: (S, W), and cosines (S, 1 or W, M) of which ``mask`` is negative."""
        positive = positive / self.temperature
        negative = (negative / self.temperature).masked_fill(~mask, -math.inf)
        return torch.logaddexp(positive, negative.logsumexp(-1)) - positive


def _cosines(queries: Tensor, windows: Tensor) -> Tensor:
    """(S, J) with (S, W, J) -> (S, W)."""
    return (windows @ queries[..., None])[..., 0]
