"""Which sentence belongs to which video: the only supervision where nobody says when."""

import math

import numpy as np
import torch
from mmaction.registry import MODELS
from torch import Tensor, nn

from mmn_plugin.models.negatives import Candidates, NegativePool, Negatives


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
        if not 0 < top_share <= 1:
            raise ValueError(f'loss_matching.top_share={top_share}; give a share above 0, up to 1')
        if not (temperature > 0 and pooling_temperature > 0):
            raise ValueError(
                f'loss_matching.temperature={temperature}, pooling_temperature='
                f'{pooling_temperature}; both must be above 0'
            )
        self.temperature = temperature
        self.top_share = top_share
        self.pooling_temperature = pooling_temperature

    def forward(
        self,
        clips: Tensor,
        sentences: Tensor,
        sentence_video: Tensor,
        negatives: Negatives | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both directions, each the mean over the batch's sentences.

        Args:
            clips (Tensor): (B, N, J), L2-normalised.
            sentences (Tensor): (S, J), L2-normalised.
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            negatives (Negatives, optional): What to compare with; its first pool holds the batch
                itself. Defaults to None: the batch alone, every video of it another one.

        Returns:
            tuple[Tensor, Tensor]: Video-to-sentences loss (``loss_vid``) and sentence-to-videos
            loss (``loss_sent``), scalars.
        """
        if negatives is None:
            own = Candidates(
                clips, sentences, None, sentence_video.cpu().numpy(), list(range(len(clips)))
            )
            negatives = Negatives([NegativePool.of(own, own, 0, 0)])
        positive = self.pool((clips[sentence_video] @ sentences[..., None])[..., 0])
        positive = positive / self.temperature  # (S,)
        of_video, of_sentence = [], []
        for pool in negatives.pools:
            of_video.append(self._other_sentences(clips, sentence_video, pool))
            of_sentence.append(self._other_videos(sentences, pool))
        others = (torch.cat(parts, 1).logsumexp(1) for parts in (of_video, of_sentence))
        return tuple((torch.logaddexp(positive, other) - positive).mean() for other in others)

    def pool(self, cosines: Tensor) -> Tensor:
        """Soft top-k pooling over the clips: (..., N) -> (...)."""
        count = max(1, round(self.top_share * cosines.shape[-1]))
        best = cosines.topk(count, dim=-1).values  # (..., k)
        return (best * (best / self.pooling_temperature).softmax(-1)).sum(-1)

    def _other_videos(self, sentences: Tensor, pool: NegativePool) -> Tensor:
        """Logits (S, V) of each sentence with the pool's videos, but its own and its text's."""
        candidates = pool.candidates
        videos = candidates.moments  # (V, N, J)
        cosines = (sentences @ videos.flatten(0, 1).T).unflatten(1, videos.shape[:2])  # (S, V, N)
        rows, columns = pool.same_video
        if pool.same_text is not None:
            rows = np.concatenate([rows, pool.same_text[0]])
            columns = np.concatenate([columns, candidates.sentence_video[pool.same_text[1]]])
        logits = self.pool(cosines) / self.temperature
        if pool.log_weight is not None:
            logits = logits + pool.log_weight
        return _without(logits, rows, columns)

    def _other_sentences(self, clips: Tensor, sentence_video: Tensor, pool: NegativePool) -> Tensor:
        """Logits (S, S') of each sentence's video with the pool's sentences of other videos."""
        candidates = pool.candidates
        cosines = (candidates.sentences @ clips.flatten(0, 1).T).unflatten(1, clips.shape[:2])
        logits = self.pool(cosines).T / self.temperature  # (S', B, N) -> (B, S')
        if pool.log_weight is not None:
            video = torch.from_numpy(candidates.sentence_video).to(logits.device)
            logits = logits + pool.log_weight[video]
        rows, columns = pool.same_video_sentences
        if pool.same_text is not None:
            rows, columns = (
                np.concatenate(pair) for pair in zip((rows, columns), pool.same_text, strict=True)
            )
        return _without(logits[sentence_video], rows, columns)


def _without(logits: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Logits (S, M) whose entries at some places say nothing, nor get a gradient."""
    mask = np.zeros(tuple(logits.shape), dtype=bool)
    mask[rows, columns] = True
    mask = torch.from_numpy(mask).to(logits.device, non_blocking=True)
    return logits.masked_fill(mask, -math.inf)
