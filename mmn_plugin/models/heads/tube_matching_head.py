"""Head of the spatio-temporal variant: sentences against cells of tubes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import NegativeSource
from mmn_plugin.structures import MomentGrid, TubeDataSample, cell_bounds, cell_iou


@dataclass
class TubePairs:
    """Every sentence of a batch with every tube of its own video.

    Attributes:
        sentence (np.ndarray): (Q,) int64, never falling.
        tube (np.ndarray): (Q,) int64, place among the batch's tubes, not among the video's.
    """

    sentence: np.ndarray
    tube: np.ndarray

    @classmethod
    def of(cls, data_samples: Sequence[TubeDataSample]) -> 'TubePairs':
        """The pairs of some videos, in order of videos, sentences, tubes."""
        sentences, tubes, first_sentence, first_tube = [], [], 0, 0
        for sample in data_samples:
            count, width = len(sample.sentences), len(sample.tubes)
            sentences.append(np.repeat(np.arange(count), width) + first_sentence)
            tubes.append(np.tile(np.arange(width), count) + first_tube)
            first_sentence, first_tube = first_sentence + count, first_tube + width
        return cls(np.concatenate(sentences), np.concatenate(tubes))

    def positives(self, target: np.ndarray) -> Tensor:
        """Each sentence's pair and cell of highest target, the first of equals.

        Args:
            target (np.ndarray): (Q, P).

        Returns:
            Tensor: (S, 2) int64.
        """
        begin = np.flatnonzero(np.diff(self.sentence, prepend=-1))  # (S,) first pair
        end = np.append(begin[1:], len(self.sentence))
        width = target.shape[1]
        best = np.array(
            [
                first * width + target[first:last].argmax()
                for first, last in zip(begin, end, strict=True)
            ]
        )
        return torch.from_numpy(np.stack([best // width, best % width], 1))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """``sentence`` and ``tube`` on a device, for which nobody waits."""
        return tuple(
            torch.from_numpy(index).to(device, non_blocking=True)
            for index in (self.sentence, self.tube)
        )


@MODELS.register_module()
class TubeMatchingHead(BaseModule):
    """Score the moments of tubes against sentences (the HC-STVG variant of MMN).

    As in `MutualMatchingHead` there are two joint spaces; at test ``contrastive * iou`` ranks, and
    the answer is the best cell over all tubes of the video whose span holds a box.

    Args:
        grid (MomentGrid): The moments of a tube; the localizer passes it.
        loss_matching (dict): Config of the loss of the contrastive space.
        loss_iou (dict): Config of the loss of the IoU space; it is a mean over all cells of all
            tubes of the batch, not of the videos' means.
        contrastive_weight (float): Weight of the contrastive losses.
        iou_scale (float): Factor on the cosine before the sigmoid. Defaults to 10.
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Attributes:
        contrastive_factor (float): Scheduled factor on the contrastive losses, 1 unless
            ``CrossVideoNegativeHook`` sets it.
    """

    def __init__(
        self,
        grid: MomentGrid,
        loss_matching: dict,
        loss_iou: dict,
        contrastive_weight: float,
        iou_scale: float = 10.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.grid = grid
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_iou = MODELS.build(loss_iou)
        self.contrastive_weight = contrastive_weight
        self.contrastive_factor = 1.0
        self.iou_scale = iou_scale
        self._negatives = NegativeSource()

    @property
    def negatives(self) -> NegativeSource:
        """Where negatives come from: the batch of the device, as published.

        Raises:
            ValueError: If it is set to a source that this head does not have.
        """
        return self._negatives

    @negatives.setter
    def negatives(self, source: NegativeSource) -> None:
        if source.scope != 'local' or source.bank is not None or source.exclude_same_text:
            raise InputError(
                "TubeMatchingHead takes its negatives from the device's batch alone: leave scope, "
                'queue_size and exclude_same_text out of default_hooks.negatives'
            )
        self._negatives = source

    def loss(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[TubeDataSample],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch, computed in float32 at least.

        Args:
            moments (dict[str, Tensor]): ``iou`` and ``contrastive``, each (T, P, J).
            sentences (dict[str, Tensor]): ``iou`` and ``contrastive``, each (S, J).
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            data_samples (list[TubeDataSample]): With ground truth.

        Returns:
            dict[str, Tensor]: ``loss_vid``, ``loss_sent``, ``loss_iou``; their sum is the total.
        """
        device = sentence_video.device
        pairs = TubePairs.of(data_samples)
        target = self.targets(data_samples)  # (Q, P)
        positives = pairs.positives(target).to(device, non_blocking=True)  # (S, 2)
        target = torch.from_numpy(target).to(device, non_blocking=True)
        with torch.autocast(device.type, enabled=False):
            moments, sentences = self._normalise(moments), self._normalise(sentences)
            row, tube = pairs.on(device)
            loss_vid, loss_sent = self.loss_matching(
                moments['contrastive'], sentences['contrastive'], row, tube, target, positives
            )
            cosines = self._cosines(moments['iou'], sentences['iou'], row, tube)  # (Q, P)
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

    def predict(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[TubeDataSample],
    ) -> list[TubeDataSample]:
        """Find the best span of the best tube for each sentence.

        Args: as of ``loss``; ground truth is not looked at.

        Returns:
            list[TubeDataSample]: The samples, with ``pred_instances``.
        """
        contrastive, iou = self.score(moments, sentences, data_samples)  # (Q, P)
        return self.rank((contrastive * iou).cpu(), data_samples)

    def score(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        data_samples: list[TubeDataSample],
    ) -> tuple[Tensor, Tensor]:
        """Contrastive and IoU score of each sentence with its video's tubes, both (Q, P)."""
        device = moments['iou'].device
        row, tube = TubePairs.of(data_samples).on(device)
        with torch.autocast(device.type, enabled=False):
            moments, sentences = self._normalise(moments), self._normalise(sentences)
            contrastive, iou = (
                self._cosines(moments[space], sentences[space], row, tube)
                for space in ('contrastive', 'iou')
            )
            return contrastive, (self.iou_scale * iou).sigmoid()

    def rank(self, scores: Tensor, data_samples: list[TubeDataSample]) -> list[TubeDataSample]:
        """Give the samples the span of highest score that holds a box.

        Args:
            scores (Tensor): (Q, P), on the host.
            data_samples (list[TubeDataSample]): B videos.

        Returns:
            list[TubeDataSample]: The samples, with ``pred_instances``.
        """
        sizes = [len(sample.sentences) * len(sample.tubes) for sample in data_samples]
        for sample, last, size in zip(data_samples, accumulate(sizes), sizes, strict=True):
            bounds = cell_bounds(self.grid, [len(tube) for tube in sample.tubes])  # (T, P, 2)
            shape = (len(sample.sentences), *bounds.shape[:2])
            if not shape[1]:
                sample.pred_instances = self._no_answer(shape[0])
                continue
            own = scores[last - size : last].reshape(shape)  # (s, T, P)
            empty = torch.from_numpy(bounds[..., 0] == bounds[..., 1])
            best, place = own.masked_fill(empty, -torch.inf).flatten(1).max(1)  # (s,)
            tube, cell = place // shape[2], place % shape[2]
            spans = [
                sample.tubes[t][slice(*bounds[t, p])]
                for t, p in zip(tube.tolist(), cell.tolist(), strict=True)
            ]
            sample.pred_instances = InstanceData(tubes=spans, tube_index=tube, scores=best)
        return data_samples

    @staticmethod
    def _no_answer(count: int) -> InstanceData:
        nothing = np.zeros((0, 5), np.float32)
        return InstanceData(
            tubes=[nothing] * count,
            tube_index=torch.full((count,), -1),
            scores=torch.full((count,), -torch.inf),
        )

    @staticmethod
    def _normalise(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            space: F.normalize(value.to(torch.promote_types(value.dtype, torch.float32)), dim=-1)
            for space, value in embeddings.items()
        }

    @staticmethod
    def _cosines(moments: Tensor, sentences: Tensor, row: Tensor, tube: Tensor) -> Tensor:
        """(Q, P) from (T, P, J) and (S, J)."""
        return torch.einsum('tpj,sj->stp', moments, sentences)[row, tube]
