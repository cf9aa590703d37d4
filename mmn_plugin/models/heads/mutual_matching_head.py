"""Losses and predictions from the embeddings of moments and sentences."""

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from mmn_plugin.models.negatives import Candidates, NegativeSource
from mmn_plugin.models.ranking import moment_scores
from mmn_plugin.structures import GroundingDataSample, MomentGrid, normalised_text, temporal_iou

from .base_head import exact_product, rank_moments


@MODELS.register_module()
class MutualMatchingHead(BaseModule):
    """Score moments against sentences in two joint spaces.

    The IoU score is ``sigmoid(iou_scale * cos)`` in the first space, the contrastive score the
    cosine in the second; at test ``(0.5 * contrastive + 0.5) ** score_power * iou`` ranks.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        loss_matching (dict): Config of the loss of the contrastive space.
        loss_iou (dict): Config of the loss of the IoU space.
        contrastive_weight (float): Weight of the contrastive losses.
        score_power (float): Power of the contrastive score at test (p).
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        iou_scale (float): Factor on the cosine before the sigmoid. Defaults to 10.
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Attributes:
        contrastive_factor (float): Scheduled factor on the contrastive losses (f), 1 unless
            ``CrossVideoNegativeHook`` sets it.
        negatives (NegativeSource): Where the contrastive losses' negatives come from: the batch,
            unless ``CrossVideoNegativeHook`` sets another source.
    """

    def __init__(
        self,
        grid: MomentGrid,
        loss_matching: dict,
        loss_iou: dict,
        contrastive_weight: float,
        score_power: float,
        nms_threshold: float,
        top_n: int = 5,
        iou_scale: float = 10.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.grid = grid
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_iou = MODELS.build(loss_iou)
        self.contrastive_weight = contrastive_weight
        self.contrastive_factor = 1.0
        self.negatives = NegativeSource()
        self.score_power = score_power
        self.nms_threshold = nms_threshold
        self.top_n = top_n
        self.iou_scale = iou_scale

    def loss(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch.

        Under mixed precision too they are computed in float32: bfloat16 resolves a cosine to
        1/256, and a temperature of 0.1 multiplies that by 10.

        Args:
            moments (dict[str, Tensor]): ``iou`` and ``contrastive``, each (B, P, J).
            sentences (dict[str, Tensor]): ``iou`` and ``contrastive``, each (S, J).
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            data_samples (list[GroundingDataSample]): With ground truth.

        Returns:
            dict[str, Tensor]: ``loss_vid``, ``loss_sent``, ``loss_iou``; their sum is the total.
            How they count over several ranks is the business of ``self.negatives``.
        """
        with torch.autocast(sentence_video.device.type, enabled=False):
            moments, sentences = map(self.normalise, (moments, sentences))
            truth = torch.cat([s.gt_instances.moments for s in data_samples]).cpu()  # (S, 2)
            ground_truth = truth.to(sentence_video.device, non_blocking=True)
            counts = [len(sample.sentences) for sample in data_samples]
            spans = self.spans(data_samples, sentence_video)  # (B, P, 2)
            iou = temporal_iou(ground_truth[:, None], spans[sentence_video])  # (S, P)
            negatives = self.negatives.collect(
                self.candidates(
                    moments['contrastive'],
                    sentences['contrastive'],
                    iou,
                    ground_truth,
                    data_samples,
                ),
                self.training,
            )
            loss_vid, loss_sent = self.loss_matching(
                moments['contrastive'],
                sentences['contrastive'],
                sentence_video,
                iou,
                ground_truth,
                negatives,
                self.positives(truth, data_samples),
            )
            cosines = self.own_video_cosines(
                moments['iou'], sentences['iou'], sentence_video, counts
            )
            weight = self.contrastive_factor * self.contrastive_weight
            return negatives.scale(
                dict(
                    loss_vid=weight * loss_vid,
                    loss_sent=weight * loss_sent,
                    loss_iou=self.loss_iou(self.iou_scale * cosines, iou),
                )
            )

    def positives(self, truth: Tensor, data_samples: list[GroundingDataSample]) -> Tensor:
        """Each sentence's moments of highest IoU, (S, K), found on the host from (S, 2) seconds.

        On the CPU because ties are resolved there as in the published figures; from the samples,
        which are there already, because the host would wait for whatever the device computes.
        """
        counts = torch.tensor([len(sample.sentences) for sample in data_samples])
        video = torch.arange(len(data_samples)).repeat_interleave(counts)  # (S,)
        spans = self.spans(data_samples, video)  # (B, P, 2)
        iou = temporal_iou(truth[:, None], spans[video])  # (S, P)
        return iou.topk(self.loss_matching.num_positive, dim=1).indices

    @staticmethod
    def candidates(
        moments: Tensor,
        sentences: Tensor,
        iou: Tensor,
        ground_truth: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> Candidates:
        """The batch with the names of its videos and the texts of its sentences."""
        counts = [len(sample.sentences) for sample in data_samples]
        return Candidates(
            moments,
            sentences,
            ground_truth,
            np.repeat(np.arange(len(counts)), counts),
            [sample.video_id for sample in data_samples],
            [normalised_text(text) for sample in data_samples for text in sample.sentences],
            iou,
        )

    def predict(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> list[GroundingDataSample]:
        """Rank the moments of each sentence's video.

        Args: as of ``loss``; ground truth is not looked at.

        Returns:
            list[GroundingDataSample]: The samples, with ``pred_instances``.
        """
        counts = [len(sample.sentences) for sample in data_samples]
        contrastive, iou_score = self.score(moments, sentences, sentence_video, counts)  # (S, P)
        scores = moment_scores(contrastive, iou_score, self.score_power)
        return self.rank(scores, sentence_video, data_samples)

    def rank(
        self, scores: Tensor, sentence_video: Tensor, data_samples: list[GroundingDataSample]
    ) -> list[GroundingDataSample]:
        """Give the samples the best moments of their sentences after NMS.

        Args:
            scores (Tensor): (S, P).
            sentence_video (Tensor): (S,), place of each sentence's video among the samples.
            data_samples (list[GroundingDataSample]): B videos.

        Returns:
            list[GroundingDataSample]: The samples, with ``pred_instances``: ``moments`` (s, n, 2)
            in seconds and ``scores`` (s, n), NaN-padded, on the CPU.
        """
        spans = self.spans(data_samples, sentence_video)  # (B, P, 2)
        return rank_moments(
            spans, scores, sentence_video, data_samples, self.nms_threshold, self.top_n
        )

    def spans(self, data_samples: list[GroundingDataSample], sentence_video: Tensor) -> Tensor:
        """Start and end of the moments of each video, (B, P, 2) seconds, on the batch's device."""
        durations = torch.tensor([sample.duration for sample in data_samples])
        return self.grid.spans(durations.to(sentence_video.device, non_blocking=True))

    def score(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        counts: list[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Contrastive and IoU score of each sentence with its video's moments, both (S, P).

        Like the losses in float32, under mixed precision too: bfloat16 would leave a few hundred
        different scores, and NMS would rank by chance.
        """
        with torch.autocast(sentence_video.device.type, enabled=False):
            moments, sentences = map(self.normalise, (moments, sentences))
            contrastive, iou = (
                self.own_video_cosines(moments[space], sentences[space], sentence_video, counts)
                for space in ('contrastive', 'iou')
            )
            return contrastive, (self.iou_scale * iou).sigmoid()

    def score_video(
        self, moments: dict[str, Tensor], sentences: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As `score`, of one video whose moments were made unit vectors once for all sentences.

        Args:
            moments (dict[str, Tensor]): (U, J) per space, from `normalise`.
            sentences (dict[str, Tensor]): (s, J) per space, as the text encoder gives them.

        Returns:
            tuple[Tensor, Tensor]: Contrastive and IoU score, both (s, U).
        """
        with torch.autocast(moments['iou'].device.type, enabled=False):
            sentences = self.normalise(sentences)
            contrastive, iou = (
                sentences[space] @ moments[space].T for space in ('contrastive', 'iou')
            )
            return contrastive, (self.iou_scale * iou).sigmoid()

    @staticmethod
    def normalise(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """Unit vectors, float32 or longer, of the embeddings in each space."""
        return {
            space: F.normalize(_at_least_float32(value), dim=-1)
            for space, value in embeddings.items()
        }

    @staticmethod
    def own_video_cosines(
        moments: Tensor, sentences: Tensor, sentence_video: Tensor, counts: list[int] | None = None
    ) -> Tensor:
        """Similarity of each sentence with the moments of its own video.

        Sentences are laid out (B, s_max) by video, so that one batched product serves all.

        Args:
            moments (Tensor): (B, P, J).
            sentences (Tensor): (S, J).
            sentence_video (Tensor): (S,), never falling.
            counts (list[int], optional): Sentences of each of the B videos. Defaults to None:
                counted, for which the host waits.

        Returns:
            Tensor: (S, P).
        """
        if counts is None:
            counts = torch.bincount(sentence_video, minlength=len(moments)).tolist()
        place = np.concatenate([np.arange(count) for count in counts])
        place = torch.from_numpy(place).to(sentences.device, non_blocking=True)
        padded = sentences.new_zeros(len(moments), max(counts), sentences.shape[-1])
        padded = padded.index_put((sentence_video, place), sentences)  # (B, s_max, J)
        products = exact_product(padded, moments.transpose(1, 2))  # (B, s_max, P)
        return products[sentence_video, place]  # (S, P)


def _at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
