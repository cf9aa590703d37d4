"""MMN's head: moments against sentences in two joint spaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import on
from mmn_plugin.models.ranking import moment_scores, trusted
from mmn_plugin.structures import (
    GroundingDataSample,
    MomentGrid,
    VideoEmbedding,
    best_iou,
    padded_windows,
    temporal_iou,
    true_windows,
)

from .base_head import BaseHead, own_video_products, owners, unit_vectors


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
        positives (str): Of a sentence with several windows ``'window'`` takes the moments of
            highest IoU with each window as positives, and ``'sentence'`` those of highest IoU with
            the window that they fit best, as many as if it had one. Defaults to ``'window'``.
        absent (str): A sentence without a window has no positive. ``'repel'``: it is a negative of
            all moments, of its own video too, and the target of its IoU loss is 0. ``'ignore'``: no
            loss sees it. Defaults to ``'repel'``.

    Raises:
        ValueError: If a weight is below 0: the score would fall where the cosine rises; or if
            ``positives`` or ``absent`` is none of these.
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
        positives: str = 'window',
        absent: str = 'repel',
    ):
        super().__init__(grid, nms_threshold, top_n, negatives, expected_iou_power, curves)
        for name, weight in dict(
            tower_weight=tower_weight, window_tower_weight=window_tower_weight
        ).items():
            if weight is not None and not weight >= 0:
                raise InputError(f'model.head.{name}={weight}; it must be at least 0')
        _require_one_of('positives', positives, 'window', 'sentence')
        _require_one_of('absent', absent, 'repel', 'ignore')
        self.positives, self.absent = positives, absent
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

        Args and how they are computed: as of `BaseHead`. How they count over several ranks is the
        business of ``self.negatives``.
        """
        if self.absent == 'ignore':
            sentences, data_samples = without_absent(sentences, data_samples)
        counts = [len(sample.sentences) for sample in data_samples]
        windows = [own.cpu() for sample in data_samples for own in sample.windows]
        # Ties are resolved on the CPU, as in the published figures; and from the samples, which are
        # there already, because the host would wait for whatever the device computes.
        positives = self._positives(windows, data_samples)
        with torch.autocast(sentence_video.device.type, enabled=False):
            moments, sentences = unit_vectors(embeddings), unit_vectors(sentences)
            truth = padded_windows(windows).to(sentence_video.device, non_blocking=True)
            iou = best_iou(truth, self._spans(data_samples, truth.device))  # (S, P)
            own = self.candidates(
                moments['contrastive'],
                sentences['contrastive'],
                data_samples,
                truth,
                iou,
                sentences.get('meaning'),
            )
            negatives = self.negatives.collect(own, num_rows=len(positives.moments))
            loss_vid, loss_sent = self.loss_matching(
                own,
                positives.moments,
                negatives,
                sentence=positives.sentence,
                window=positives.window,
            )
            cosines = own_video_products(moments['iou'], sentences['iou'], counts)
            weight = self.contrastive_factor * self.contrastive_weight
            logits = self.iou_scale * cosines
            return negatives.scale(
                dict(
                    loss_vid=weight * loss_vid,
                    loss_sent=weight * loss_sent,
                    loss_iou=self.loss_iou(logits, iou) if len(iou) else logits.sum(),
                ),
                over_sentences=('loss_iou',),
            )

    def _positives(
        self, windows: list[Tensor], data_samples: list[GroundingDataSample]
    ) -> 'Positives':
        """Positives of S sentences by their windows (W_i, 2), on the host."""
        counts = np.array([len(own) for own in windows], dtype=np.int64)
        spans = self._spans(data_samples, 'cpu')  # (S, P, 2)
        if self.positives == 'window' or counts.max(initial=0) <= 1:
            sentence = np.repeat(np.arange(len(windows)), counts)
            window = np.arange(len(sentence)) - np.repeat(counts.cumsum() - counts, counts)
            flat = torch.cat([*windows, torch.zeros(0, 2)])  # (G, 2)
            iou = temporal_iou(flat[:, None], spans[sentence])  # (G, P)
            window = torch.from_numpy(window)[:, None].expand_as(iou)
        else:
            sentence = np.flatnonzero(counts)
            padded = padded_windows(windows)[sentence, :, None]  # (G, M, 1, 2)
            overlaps = temporal_iou(padded, spans[sentence][:, None]).nan_to_num(nan=-1.0)
            iou, window = overlaps.max(1)  # (G, P)
        moments = iou.topk(self.loss_matching.num_positive, dim=1).indices  # (G, K)
        if (counts == 1).all():
            return Positives(moments)
        return Positives(moments, sentence, window.gather(1, moments))

    def _spans(self, data_samples: list[GroundingDataSample], device) -> Tensor:
        """Seconds (S, P, 2) of the moments of each sentence's video."""
        durations = torch.tensor([sample.duration for sample in data_samples])
        spans = self.grid.spans(durations.to(device, non_blocking=True))  # (B, P, 2)
        return spans[on(owners([len(sample.sentences) for sample in data_samples]), device)]

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
                f'library.tower_weight={weight}, but the model has no tower: set it to 0, or set '
                'model.tower, and model.head.tower_weight or window_tower_weight above 0'
            )
        return MatchingScore(power, self.iou_scale, weight)


def _require_one_of(name: str, value: object, one: str, other: str) -> None:
    if value not in (one, other):
        raise InputError(f'model.head.{name}={value!r}: give {one!r} or {other!r}')


class Positives(NamedTuple):
    """Positive moments of a batch, on the host; arguments of `MutualMatchingLoss`.

    Attributes:
        moments (Tensor): (G, K) int64.
        sentence (np.ndarray | None): (G,) int64; None where each sentence has one window.
        window (Tensor | None): (G, K) int64, likewise.
    """

    moments: Tensor
    sentence: np.ndarray | None = None
    window: Tensor | None = None


def without_absent(
    sentences: dict[str, Tensor], data_samples: list[GroundingDataSample]
) -> tuple[dict[str, Tensor], list[GroundingDataSample]]:
    """A batch without the sentences that have no window; its videos stay."""
    windows = [sample.windows for sample in data_samples]
    kept = np.flatnonzero([len(one) > 0 for own in windows for one in own])
    if len(kept) == sum(map(len, windows)):
        return sentences, data_samples
    samples = []
    for sample, own in zip(data_samples, windows, strict=True):
        there = [place for place, one in enumerate(own) if len(one)]
        texts = [sample.sentences[place] for place in there]
        about = dict(video_id=sample.video_id, duration=sample.duration, sentences=texts)
        samples.append(GroundingDataSample(metainfo=about))
        samples[-1].gt_instances = true_windows([own[place].tolist() for place in there])
    return {space: rows[on(kept, rows.device)] for space, rows in sentences.items()}, samples


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
