"""Head of the spatio-temporal variant: sentences against cells of tubes."""

from collections.abc import Sequence

import numpy as np
import torch
from mmaction.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.models.negatives import on
from mmn_plugin.structures import (
    MomentGrid,
    TubeDataSample,
    TubeEmbedding,
    cell_bounds,
    cell_iou,
)

from .base_head import BaseHead, unit_vectors


def tube_pairs(data_samples: Sequence[TubeDataSample]) -> tuple[np.ndarray, np.ndarray]:
    """Every sentence of a batch with every tube of its own video.

    Returns:
        tuple[np.ndarray, np.ndarray]: (Q,) int64 sentences, never falling, and (Q,) int64 tubes, as
        places in the batch; in order of videos, sentences, tubes.
    """
    sentences, tubes, first_sentence, first_tube = [], [], 0, 0
    for sample in data_samples:
        count, width = len(sample.sentences), len(sample.tubes)
        sentences.append(np.repeat(np.arange(count), width) + first_sentence)
        tubes.append(np.tile(np.arange(width), count) + first_tube)
        first_sentence, first_tube = first_sentence + count, first_tube + width
    return np.concatenate(sentences), np.concatenate(tubes)


def best_cells(sentence: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Each sentence's pair and cell of highest target, (S, 2) int64, the first of equals.

    Args:
        sentence (np.ndarray): (Q,), of each pair.
        target (np.ndarray): (Q, P).
    """
    begins = np.flatnonzero(np.diff(sentence, prepend=-1))  # (S,) first pair
    best = [part.argmax() for part in np.split(target, begins[1:])]
    pairs, cells = np.divmod(best, target.shape[1])
    return np.stack([begins + pairs, cells], 1)


@MODELS.register_module()
class TubeMatchingHead(BaseHead):
    """Score the moments of tubes against sentences (the HC-STVG variant of MMN).

    As in `MutualMatchingHead` there are two joint spaces; at test ``contrastive * iou`` ranks, and
    the answer is the best cell over all tubes of the video whose span holds a box. As published
    negatives come from the device's batch.

    Args:
        grid (MomentGrid): The moments of a tube; the localizer passes it.
        loss_matching (dict): Config of the loss of the contrastive space.
        loss_iou (dict): Config of the loss of the IoU space; it is a mean over all cells of all
            tubes of the batch, not of the videos' means.
        contrastive_weight (float): Weight of the contrastive losses.
        iou_scale (float): Factor on the cosine before the sigmoid. Defaults to 10.
        negatives (dict, optional): ``videos_per_step``, ``piece`` and ``piece_statistics`` of
            `NegativeSource`. Defaults to None.

    Raises:
        ValueError: If ``negatives`` has another setting, which tubes do not know.
    """

    known_negatives = ('videos_per_step', 'piece', 'piece_statistics')

    def __init__(
        self,
        grid: MomentGrid,
        loss_matching: dict,
        loss_iou: dict,
        contrastive_weight: float,
        iou_scale: float = 10.0,
        negatives: dict | None = None,
    ):
        super().__init__(grid, nms_threshold=1.0, top_n=1, negatives=negatives)
        self.grid = grid
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_iou = MODELS.build(loss_iou)
        self.contrastive_weight = contrastive_weight
        self.iou_scale = iou_scale

    def loss(
        self,
        embeddings: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[TubeDataSample],
    ) -> dict[str, Tensor]:
        """``loss_vid``, ``loss_sent``, ``loss_iou`` from the spaces ``iou`` and ``contrastive``.

        Args: as of `BaseHead`, with (T, P, J) embeddings of the tubes of all videos.
        """
        device = sentence_video.device
        row, tube = tube_pairs(data_samples)
        target = self.targets(data_samples)  # (Q, P)
        on_host = row, tube, target, best_cells(row, target)
        row, tube, target, positives = (on(array, device) for array in on_host)
        with torch.autocast(device.type, enabled=False):
            moments, sentences = unit_vectors(embeddings), unit_vectors(sentences)
            loss_vid, loss_sent = self.loss_matching(
                moments['contrastive'], sentences['contrastive'], row, tube, target, positives
            )
            cosines = torch.einsum('tpj,sj->stp', moments['iou'], sentences['iou'])[row, tube]
            weight = self.contrastive_factor * self.contrastive_weight
            return dict(
                loss_vid=weight * loss_vid,
                loss_sent=weight * loss_sent,
                loss_iou=self.loss_iou(self.iou_scale * cosines, target),
            )

    def targets(self, data_samples: list[TubeDataSample]) -> np.ndarray:
        """Spatio-temporal IoU of every cell of every tube with each sentence's ground truth.

        Made when they are needed, from boxes; nothing of that size is ever stored.

        Args:
            data_samples (list[TubeDataSample]): B videos.

        Returns:
            np.ndarray: (Q, P) float32, Q pairs of a sentence and a tube of its video, in order of
            videos, sentences, tubes.
        """
        result = []
        for sample in data_samples:
            bounds = cell_bounds(self.grid, [len(tube) for tube in sample.tubes])
            result += [
                cell_iou(self.grid, sample.tubes, truth, bounds)
                for truth in sample.gt_instances.tubes
            ]
        return np.concatenate(result)

    def split(
        self, embeddings: dict[str, Tensor], data_samples: list[TubeDataSample]
    ) -> list[TubeEmbedding]:
        """Videos of a batch.

        Args:
            embeddings (dict[str, Tensor]): (T, P, J) per space, tubes of all videos end to end.
            data_samples (list[TubeDataSample]): B videos.
        """
        embeddings, videos, first = unit_vectors(embeddings), [], 0
        for sample in data_samples:
            own = slice(first, first := first + len(sample.tubes))
            bounds = cell_bounds(self.grid, [len(tube) for tube in sample.tubes])  # (T, P, 2)
            videos.append(
                TubeEmbedding(
                    {space: rows[own].flatten(0, 1) for space, rows in embeddings.items()},
                    torch.from_numpy(bounds).flatten(0, 1),
                    sample.video_id,
                    float('nan'),
                    tubes=sample.tubes,
                )
            )
        return videos

    def fuse(self, cosines: dict[str, Tensor], video: TubeEmbedding, counts=None) -> Tensor:
        """``contrastive * sigmoid(iou_scale * iou)``, (S, T * P), in [-1, 1] as published."""
        return cosines['contrastive'] * (self.iou_scale * cosines['iou']).sigmoid()

    def rank(self, video: TubeEmbedding, scores: Tensor) -> InstanceData:
        """The span of highest score that holds a box, of each sentence.

        Args:
            video (TubeEmbedding): One video.
            scores (Tensor): (s, T * P), from `score`.

        Returns:
            InstanceData: ``tubes``, list of s spans of candidates; ``tube_index`` (s,) int64, the
            candidate's place, and ``scores`` (s,), on the CPU. Without candidates a tube is empty,
            its index -1 and its score -inf.
        """
        count = len(scores)
        if not len(video.tubes):
            return InstanceData(
                tubes=[np.zeros((0, 5), np.float32)] * count,
                tube_index=torch.full((count,), -1),
                scores=torch.full((count,), -torch.inf),
            )
        empty = video.spans[:, 0] == video.spans[:, 1]  # (T * P,)
        best, place = scores.cpu().masked_fill(empty, -torch.inf).max(1)  # (s,)
        tube = place // self.grid.num_moments
        spans = [
            video.tubes[t][slice(*video.spans[cell].tolist())]
            for t, cell in zip(tube.tolist(), place.tolist(), strict=True)
        ]
        return InstanceData(tubes=spans, tube_index=tube, scores=best)

    def predict(
        self,
        videos: list[TubeEmbedding],
        sentences: dict[str, Tensor],
        data_samples: list[TubeDataSample],
    ) -> list[TubeDataSample]:
        """Find the best span of the best tube for each sentence; args as of `BaseHead`."""
        counts = [len(sample.sentences) for sample in data_samples]
        parts = {space: rows.split(counts) for space, rows in sentences.items()}
        scores = [
            self.score(video, {space: rows[place] for space, rows in parts.items()})
            for place, video in enumerate(videos)
        ]  # B times (s, T * P)
        flat = torch.cat([score.flatten() for score in scores]).cpu()  # one copy to wait for
        flat = flat.split([score.numel() for score in scores])
        for sample, video, score, own in zip(data_samples, videos, scores, flat, strict=True):
            sample.pred_instances = self.rank(video, own.reshape(score.shape))
        return data_samples
