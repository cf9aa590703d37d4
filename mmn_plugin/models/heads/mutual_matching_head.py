"""MMN's head: moments against sentences in two joint spaces."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import Candidates, Negatives
from mmn_plugin.models.ranking import moment_scores
from mmn_plugin.structures import (
    GroundingDataSample,
    MomentGrid,
    VideoEmbedding,
    only_windows,
    temporal_iou,
)

from .base_head import BaseHead, own_video_products, owners, unit_vectors
from .library_score import trusted

MATCHING = ('loss_vid', 'loss_sent', 'loss_vid_keys', 'loss_sent_keys')


@MODELS.register_module()
class MutualMatchingHead(BaseHead):
    """Score moments against sentences in two joint spaces.

    The IoU score is ``sigmoid(iou_scale * cos)`` in the first space, the contrastive score the
    cosine in the second; at test ``(0.5 * contrastive + 0.5) ** score_power * iou`` ranks.

    Where the features are those of a dual encoder, the model's ``tower``, a third space is free:
    that score times ``exp(tower_weight * (cosine - 1))`` with the cosine of the tower's sentence
    embedding and the mean of the moment's features, which ranks as the logarithm of the score plus
    ``tower_weight * cosine``.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        loss_matching (dict): Config of the loss of the contrastive space.
        loss_iou (dict): Config of the loss of the IoU space.
        contrastive_weight (float): Weight of the contrastive losses.
        score_power (float): Power of the contrastive score at test (p).
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        iou_scale (float): Factor on the cosine before the sigmoid. Defaults to 10.
        window_score_power (float, optional): Instead of ``score_power`` in a video of several
            windows: between windows the contrastive score decides more, since that space is trained
            to compare moments of different videos, and the IoU space is not. Defaults to None.
        negatives (dict, optional): As of `BaseHead`. Defaults to None.
        tower_weight (float): Weight of the tower's cosine, at least 0; choose it on validation.
            Defaults to 0: no tower.
        window_tower_weight (float, optional): Instead of ``tower_weight`` in a video of several
            windows. Defaults to None.
        expected_iou_power (float, optional): As of `BaseHead`. Defaults to None.
        curves (bool): As of `BaseHead`. Defaults to False.

    Raises:
        ValueError: If a weight is below 0: the score would fall where the cosine rises.
    """

    joint_spaces = ('contrastive', 'iou')

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
        window_score_power: float | None = None,
        negatives: dict | None = None,
        tower_weight: float = 0.0,
        window_tower_weight: float | None = None,
        expected_iou_power: float | None = None,
        curves: bool = False,
    ):
        super().__init__(grid, nms_threshold, top_n, negatives, expected_iou_power, curves)
        for name, weight in dict(
            tower_weight=tower_weight, window_tower_weight=window_tower_weight
        ).items():
            if weight is not None and not weight >= 0:
                raise InputError(f'model.head.{name}={weight}; it must be at least 0')
        self.grid = self.moment_map = grid
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_iou = MODELS.build(loss_iou)
        self.contrastive_weight = contrastive_weight
        self.score_power = score_power
        self.window_score_power = window_score_power
        self.iou_scale = iou_scale
        self.tower_weight = tower_weight
        self.window_tower_weight = window_tower_weight

    @property
    def tower_spaces(self) -> tuple[str, ...]:
        """``'tower'`` where it has a weight."""
        return ('tower',) if self.tower_weight or self.window_tower_weight else ()

    def loss(
        self,
        embeddings: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> dict[str, Tensor]:
        """``loss_vid``, ``loss_sent``, ``loss_iou`` from the spaces ``iou`` and ``contrastive``.

        With a `MomentumEncoder` also ``loss_vid_keys`` and ``loss_sent_keys``.

        Args and how they are computed: as of `BaseHead`. How they count over several ranks is the
        business of ``self.negatives``.
        """
        counts = [len(sample.sentences) for sample in data_samples]
        truth = torch.cat(
            [only_windows(s.windows, s.video_id) for s in data_samples]
        ).cpu()  # (S, 2)
        # Ties are resolved on the CPU, as in the published figures; and from the samples, which are
        # there already, because the host would wait for whatever the device computes.
        positives = self._iou(truth, owners(counts), data_samples)
        positives = positives.topk(self.loss_matching.num_positive, dim=1).indices  # (S, K)
        truth = truth.to(sentence_video.device, non_blocking=True)
        with torch.autocast(sentence_video.device.type, enabled=False):
            moments, sentences = unit_vectors(embeddings), unit_vectors(sentences)
            iou = self._iou(truth, sentence_video, data_samples)
            own = self.candidates(
                moments['contrastive'],
                sentences['contrastive'],
                data_samples,
                truth,
                iou,
                sentences.get('meaning'),
            )
            matching, negatives = self._matching(own, positives, moments, sentences)
            cosines = own_video_products(moments['iou'], sentences['iou'], counts)
            weight = self.contrastive_factor * self.contrastive_weight
            return negatives.scale(
                dict(
                    {name: weight * value for name, value in matching.items()},
                    loss_iou=self.loss_iou(self.iou_scale * cosines, iou),
                )
            )

    def _matching(
        self, own: Candidates, positives: Tensor, moments: dict, sentences: dict
    ) -> tuple[dict[str, Tensor], Negatives]:
        """Both directions by name, those of the keys if there are any, and the negatives."""
        keys = None
        if 'keys' in moments:
            keys = replace(own, moments=moments['keys'], sentences=sentences['keys'])
        negatives = self.negatives.collect(own, self.training, keys)
        losses = [*self.loss_matching(own, positives, negatives)]
        if keys is not None:
            losses += self.loss_matching(own, positives, negatives, keys)
        return dict(zip(MATCHING, losses, strict=False)), negatives

    def _iou(self, truth: Tensor, video, data_samples: list[GroundingDataSample]) -> Tensor:
        """IoU of each true moment, (S, 2) seconds, with the moments of its video, (S, P)."""
        durations = torch.tensor([sample.duration for sample in data_samples])
        spans = self.grid.spans(durations.to(truth.device, non_blocking=True))  # (B, P, 2)
        return temporal_iou(truth[:, None], spans[video])

    def fuse(self, cosines: dict[str, Tensor], video: VideoEmbedding, counts=None) -> Tensor:
        """``(0.5 * contrastive + 0.5) ** score_power * sigmoid(iou_scale * iou)``, (S, P); with a
        weight of the tower times ``exp(tower_weight * (tower - 1))``.
        """
        power, weight = self.score_power, self.tower_weight
        if video.num_windows > 1:
            power, weight = self._between_windows()
        scores = moment_scores(
            cosines['contrastive'], (self.iou_scale * cosines['iou']).sigmoid(), power
        )
        if not weight:
            return scores
        return scores * (weight * (cosines['tower'].clamp(max=1) - 1)).exp()

    def _between_windows(self) -> tuple[float, float]:
        """Power and weight of the tower where moments of different windows, or videos, compete."""
        power, weight = self.window_score_power, self.window_tower_weight
        return (
            self.score_power if power is None else power,
            self.tower_weight if weight is None else weight,
        )

    @property
    def library_defaults(self) -> dict:
        """With ``score_power`` and ``tower_weight``, by default those between windows."""
        power, weight = self._between_windows()
        return dict(super().library_defaults, score_power=power, tower_weight=weight)

    def library_score(self, settings: Mapping) -> 'MatchingScore':
        """The score of `fuse` with a library's own power and weight; see `BaseHead`."""
        power, weight = settings['score_power'], settings['tower_weight']
        if not (power >= 0 and weight >= 0):
            raise InputError(
                f'library: score_power={power}, tower_weight={weight}; both must be at least 0'
            )
        if weight and not self.tower_spaces:
            raise InputError(
                f'library.tower_weight={weight}, but the model has no tower: set model.tower, and '
                'model.head.tower_weight or window_tower_weight above 0'
            )
        return MatchingScore(power, self.iou_scale, weight)


@dataclass(frozen=True)
class MatchingScore:
    """``MutualMatchingHead.fuse`` for moments of any number of videos, in float64.

    Attributes:
        power (float): Of the contrastive score.
        iou_scale (float): Factor before the sigmoid of the IoU score.
        tower_weight (float): Of the tower's cosine; with 0 it is not asked for.
    """

    power: float
    iou_scale: float
    tower_weight: float

    @property
    def spaces(self) -> tuple[str, ...]:
        """Spaces of the products."""
        return ('contrastive', 'iou', *(('tower',) if self.tower_weight else ()))

    def __call__(
        self, products: dict[str, Tensor], lengths: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Scores (...) of products (...) per space; see ``BaseHead.library_score``."""
        products = {space: value.double() for space, value in products.items()}
        scores = (0.5 * products['contrastive'] + 0.5).clamp(min=0) ** self.power
        scores = scores * (self.iou_scale * products['iou']).sigmoid()
        if self.tower_weight:
            scores = scores * (self.tower_weight * (products['tower'].clamp(max=1) - 1)).exp()
        return trusted(scores, trust)
