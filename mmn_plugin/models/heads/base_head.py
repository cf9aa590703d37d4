"""From embeddings to losses, scores and ranked moments: what all heads share."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import Candidates, NegativeSource, on
from mmn_plugin.models.ranking import FusedScore, expected_iou, rank, score_curve, with_first
from mmn_plugin.structures import (
    GroundingDataSample,
    MomentGrid,
    VideoEmbedding,
    normalized_text,
)

# Values of the curve of a video that was encoded in several windows, for pictures.
CURVE_STEPS = 96


class BaseHead(BaseModule, metaclass=ABCMeta):
    """A method's losses, and its scores of a video's units for sentences.

    A head implements `loss` and `fuse`; the rest has defaults. Wherever a `VideoEmbedding` is
    asked for, several may be given stacked (`VideoEmbedding.stack`), with ``counts``, the number of
    sentences of each: sentences are laid out video by video.

    Args:
        units (MomentGrid): The U units of a video that the head scores.
        nms_threshold (float): Proposals that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        negatives (dict, optional): Settings of `NegativeSource`: where the contrastive losses'
            negatives come from. Defaults to None: the device's batch, as published.
        expected_iou_power (float, optional): The proposal of the highest `expected_iou`, with this
            power of their scores, is the first of a ranking; chosen on validation. Defaults to
            None: that of the highest score, as published.
        curves (bool): Predict each sentence's score over time as well, see `curve`. Defaults to
            False.

    Attributes:
        contrastive_factor (float): Scheduled factor on the contrastive losses, 1 unless
            ``CrossVideoNegativeHook`` sets it.
        moment_map (MomentGrid | None): For pictures, the grid whose moments are the units; None
            where units are no moments.
        stages (tuple[str, ...]): For pictures, the spaces of a video's embeddings before any
            refinement and after each; none where nothing is refined.
        joint_spaces (tuple[str, ...]): Trained spaces that scores are made of.
        tower_spaces (tuple[str, ...]): Spaces of the model's ``tower`` that scores are made of; the
            tower is run where there is any.
        known_negatives (tuple[str, ...] | None): Settings of ``negatives`` that the losses have a
            use for; None for all.
    """

    moment_map: MomentGrid | None = None
    stages: tuple[str, ...] = ()
    joint_spaces: tuple[str, ...] = ('contrastive',)
    tower_spaces: tuple[str, ...] = ()
    known_negatives: tuple[str, ...] | None = None

    def __init__(
        self,
        units: MomentGrid,
        nms_threshold: float,
        top_n: int = 5,
        negatives: dict | None = None,
        expected_iou_power: float | None = None,
        curves: bool = False,
    ):
        super().__init__()
        if expected_iou_power is not None and not expected_iou_power > 0:
            raise InputError(
                f'model.head.expected_iou_power={expected_iou_power}; it must be above 0, or None'
            )
        self.expected_iou_power = expected_iou_power
        self.units = units
        self.nms_threshold = nms_threshold
        self.top_n = top_n
        self.negatives = NegativeSource.of(negatives or {}, self.known_negatives)
        self.curves = curves
        self.contrastive_factor = 1.0

    @abstractmethod
    def loss(
        self,
        embeddings: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch, in float32 at least, under mixed precision too.

        bfloat16 resolves a cosine to 1/256, and a temperature of 0.1 multiplies that by 10.

        Args:
            embeddings (dict[str, Tensor]): (B, U, J) per space, as the neck gives them.
            sentences (dict[str, Tensor]): (S, J) per space; with ``negatives.exclude_similar`` also
                ``meaning``, (S, C) on the CPU, for `candidates`.
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            data_samples (list[GroundingDataSample]): B videos, with ground truth: ``windows`` are
                none, one or several for each sentence.

        Returns:
            dict[str, Tensor]: Named ``loss_...``; their sum is the total.
        """

    @abstractmethod
    def fuse(
        self,
        cosines: dict[str, Tensor],
        video: VideoEmbedding,
        counts: list[int] | None = None,
    ) -> Tensor:
        """One score from the cosines of all spaces.

        Args:
            cosines (dict[str, Tensor]): (S, U) per space.
            video (VideoEmbedding): One, or several stacked: the spans of its units, and how many
                windows it was encoded in.
            counts (list[int], optional): Sentences of each of several videos. Defaults to None.

        Returns:
            Tensor: (S, U) in [0, 1], rising in every cosine.
        """

    def presence_of(self, video: VideoEmbedding, cosines: dict[str, Tensor]) -> Tensor:
        """Presence (S,) in one video from the cosines (S, U): by default the largest one in the
        first joint space, the contrastive one.

        That space is trained over videos, so it tells best whether a sentence occurs.
        """
        return cosines[self.joint_spaces[0]].amax(1)

    def split(
        self, embeddings: dict[str, Tensor], data_samples: list[GroundingDataSample]
    ) -> list[VideoEmbedding]:
        """Videos of a batch, each as unit vectors with its spans.

        Args:
            embeddings (dict[str, Tensor]): (B, U, J) per space; of no space where scores come from
                elsewhere.
            data_samples (list[GroundingDataSample]): B videos.
        """
        embeddings = unit_vectors(embeddings)
        durations = torch.tensor([sample.duration for sample in data_samples])
        device = next((rows.device for rows in embeddings.values()), 'cpu')
        spans = self.units.spans(durations.to(device, non_blocking=True))  # (B, U, 2)
        return [
            VideoEmbedding(
                {space: rows[place] for space, rows in embeddings.items()},
                spans[place],
                sample.video_id,
                sample.duration,
            )
            for place, sample in enumerate(data_samples)
        ]

    def cosines(
        self,
        video: VideoEmbedding,
        sentences: dict[str, Tensor],
        counts: list[int] | None = None,
    ) -> dict[str, Tensor]:
        """Cosine of each sentence with the units of its video, (S, U) per space.

        In float32 at least, under mixed precision too: bfloat16 resolves a cosine to 1/256, and NMS
        would rank by chance.

        Args:
            video (VideoEmbedding): One, or several stacked.
            sentences (dict[str, Tensor]): (S, J) per space, as the text encoder gives them.
            counts (list[int], optional): Sentences of each of several videos. Defaults to None.

        Raises:
            ValueError: If features and sentences of a tower have different sizes.
        """
        for space in self.tower_spaces:
            given, made = sentences[space].shape[-1], video.embeddings[space].shape[-1]
            if given != made:
                raise InputError(
                    f'features of size {made} (video {video.video_id}) are not of the tower that '
                    f'embeds sentences (model.tower), whose vectors have size {given}: extract '
                    "features with it, or set model.tower to the features' own"
                )
        with torch.autocast(video.spans.device.type, enabled=False):
            sentences = unit_vectors(sentences)
            if counts is None:
                return {
                    space: rows @ video.embeddings[space].T for space, rows in sentences.items()
                }
            return {
                space: own_video_products(video.embeddings[space], rows, counts)
                for space, rows in sentences.items()
            }

    def score(
        self,
        video: VideoEmbedding,
        sentences: dict[str, Tensor],
        counts: list[int] | None = None,
    ) -> Tensor:
        """Score of each unit of its video for each sentence, (S, U); args of `cosines`."""
        return self._scores(video, self.cosines(video, sentences, counts), counts)

    def _scores(self, video: VideoEmbedding, cosines, counts: list[int] | None = None) -> Tensor:
        scores = self.fuse(cosines, video, counts)
        if video.trust is None:
            return scores
        if counts is None:
            return scores * video.trust
        return scores * video.trust[on(owners(counts), scores.device)]

    def presence(self, video: VideoEmbedding, sentences: dict[str, Tensor]) -> Tensor:
        """How much speaks for each sentence occurring in one video at all, (S,)."""
        return self.presence_of(video, self.cosines(video, sentences))

    def curve(self, video: VideoEmbedding, scores: Tensor) -> Tensor:
        """Scores over time, for pictures and the saliency of clips.

        Args:
            video (VideoEmbedding): One video.
            scores (Tensor): (S, U), from `score`.

        Returns:
            Tensor: (S, K) on the CPU, K equal parts of the video: by default as many as the grid
            has clips, or `CURVE_STEPS` of a video in windows; see `score_curve`.
        """
        steps = self.units.num_clips if video.num_windows == 1 else CURVE_STEPS
        return score_curve(video.spans, scores, video.duration, steps)

    def proposals(self, video: VideoEmbedding, scores: Tensor) -> tuple[Tensor, Tensor]:
        """What is ranked: by default the units themselves.

        Args:
            video (VideoEmbedding): One, or several stacked.
            scores (Tensor): (S, U), from `score`.

        Returns:
            tuple[Tensor, Tensor]: Spans (P, 2), or (B, P, 2) of several videos, in seconds; and
            scores (S, P), 0 where a sentence has no such proposal.
        """
        return video.spans, scores

    def rank(
        self,
        video: VideoEmbedding,
        scores: Tensor,
        top_n: int | None = None,
        counts: list[int] | None = None,
        **beside: Tensor,
    ) -> InstanceData:
        """The best moments of each sentence after NMS, the first by score or by `expected_iou`.

        A first moment by `expected_iou` is given the best score of all, see `with_first`.

        Args:
            video (VideoEmbedding): One, or several stacked.
            scores (Tensor): (S, U), from `score`.
            top_n (int, optional): Moments per sentence (n). Defaults to None: the head's.
            counts (list[int], optional): As of `cosines`. Defaults to None.
            **beside (Tensor): (S, ...), further entries of the result.

        Returns:
            InstanceData: ``moments`` (S, n, 2) in seconds, best first, and ``scores`` (S, n), both
            NaN where fewer remain; and those beside; on the CPU.

        Raises:
            ValueError: If a score is NaN.
        """
        spans, scores = self.proposals(video, scores)
        owner = None if counts is None else on(owners(counts), scores.device)
        if self.expected_iou_power is not None and scores.shape[1]:
            scores = with_first(
                scores, expected_iou(spans, scores, self.expected_iou_power, owner).argmax(1)
            )
        moments, best, *others = rank(
            spans,
            scores,
            self.nms_threshold,
            top_n or self.top_n,
            owner,
            list(beside.values()),
        )
        return InstanceData(moments=moments, scores=best, **dict(zip(beside, others, strict=True)))

    def ground(
        self,
        video: VideoEmbedding,
        sentences: dict[str, Tensor],
        top_n: int | None = None,
        whole: bool = False,
    ) -> InstanceData:
        """As `rank` of a video's `score`, with the ``presence`` (S,) of each sentence.

        With ``whole`` also what was ranked, for pictures: ``unit_scores`` (S, U), and ``curves``
        (S, K), see `curve`.
        """
        cosines = self.cosines(video, sentences)
        scores, presence = self._scores(video, cosines), self.presence_of(video, cosines)
        found = self.rank(video, scores, top_n, presence=presence)
        if whole:
            found.unit_scores, found.curves = scores.cpu(), self.curve(video, scores)
        return found

    @property
    def library_defaults(self) -> dict:
        """Settings of a library, which is searched over many videos, with their values where none
        are given: the config's ``library``. Below ``presence_threshold``, a presence as
        `LibraryPresence` tells it, a sentence probably is nowhere in the library.
        """
        return dict(nms_threshold=self.nms_threshold, presence_threshold=0.95)

    def library_units(self, video: VideoEmbedding) -> VideoEmbedding:
        """What a library keeps of a video: moments, as vectors of any norm in the spaces of
        `library_score`. By default the units themselves.
        """
        return video

    def library_score(self, settings: Mapping):
        """The score of a library, over all its videos.

        Args:
            settings (Mapping): All of `library_defaults`.

        Returns:
            Callable: With ``spaces``, and as ``score(products, lengths, trust)``: products {space:
            (...)} of unit vectors of sentences with the vectors of `library_units`, ``lengths``
            (...) of moments as shares of what was looked at at once, and ``trust`` (...) or None
            as of `VideoEmbedding`, to scores (...) in float64 that rise in every product. By
            default `fuse` as between the windows of a long video.

        Raises:
            ValueError: If a setting is out of its range.
        """
        return FusedScore(self.fuse, (*self.joint_spaces, *self.tower_spaces))

    def predict(
        self,
        videos: list[VideoEmbedding],
        sentences: dict[str, Tensor],
        data_samples: list[GroundingDataSample],
    ) -> list[GroundingDataSample]:
        """Rank the moments of each sentence's video.

        Args:
            videos (list[VideoEmbedding]): B videos, from `split`.
            sentences (dict[str, Tensor]): (S, J) per space, video by video.
            data_samples (list[GroundingDataSample]): B videos; ground truth is not looked at.

        Returns:
            list[GroundingDataSample]: The samples, with ``pred_instances`` as of `rank`, the
            ``presence`` (s,) of their sentences, and with the setting ``curves`` their ``curves``
            (s, K).
        """
        counts = [len(sample.sentences) for sample in data_samples]
        video = VideoEmbedding.stack(videos)
        cosines = self.cosines(video, sentences, counts)
        scores = self._scores(video, cosines, counts)  # (S, U)
        parts = {space: rows.split(counts) for space, rows in cosines.items()}
        presence = [  # a shorter video's units are the first ones
            self.presence_of(
                one, {space: own[i][:, : len(one.spans)] for space, own in parts.items()}
            )
            for i, one in enumerate(videos)
        ]
        ranked = self.rank(video, scores, counts=counts, presence=torch.cat(presence))
        self.assign(ranked, data_samples)
        if self.curves:
            rows = zip(data_samples, videos, scores.cpu().split(counts), strict=True)
            for sample, one, own in rows:
                sample.pred_instances.curves = self.curve(one, own[:, : len(one.spans)])
        return data_samples

    @staticmethod
    def assign(
        ranked: InstanceData, data_samples: list[GroundingDataSample]
    ) -> list[GroundingDataSample]:
        """Give each sample the rows of its sentences as ``pred_instances``."""
        first = 0
        for sample in data_samples:
            rows = slice(first, first := first + len(sample.sentences))
            # copies: pickled, each would bring the memory of the whole batch
            own = {name: value[rows].clone() for name, value in ranked.items()}
            sample.pred_instances = InstanceData(**own)
        return data_samples

    @staticmethod
    def candidates(
        embeddings: Tensor,
        sentences: Tensor,
        data_samples: list[GroundingDataSample],
        ground_truth: Tensor | None = None,
        iou: Tensor | None = None,
        meaning: Tensor | None = None,
    ) -> Candidates:
        """A batch's (B, U, J) and (S, J) with the names of its videos and its sentences' texts."""
        return Candidates(
            embeddings,
            sentences,
            ground_truth,
            owners([len(sample.sentences) for sample in data_samples]),
            [sample.video_id for sample in data_samples],
            [normalized_text(text) for sample in data_samples for text in sample.sentences],
            iou,
            None if meaning is None else meaning.numpy(),
        )


def unit_vectors(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    """Unit vectors, float32 or longer, of the embeddings (..., J) in each space."""
    return {
        space: F.normalize(value.to(torch.promote_types(value.dtype, torch.float32)), dim=-1)
        for space, value in embeddings.items()
    }


def owners(counts: list[int]) -> np.ndarray:
    """Place of each sentence's video, (S,) int64."""
    return np.repeat(np.arange(len(counts)), counts)


def own_video_products(embeddings: Tensor, sentences: Tensor, counts: list[int]) -> Tensor:
    """Product of each sentence with the units of its own video.

    Sentences are laid out (B, s_max) by video, so that one batched product serves all.

    Args:
        embeddings (Tensor): (B, U, J).
        sentences (Tensor): (S, J), video by video.
        counts (list[int]): Sentences of each of the B videos.

    Returns:
        Tensor: (S, U).
    """
    place = owners(counts), np.concatenate([np.arange(count) for count in counts])
    place = tuple(on(index, sentences.device) for index in place)
    padded = sentences.new_zeros(len(embeddings), max(counts), sentences.shape[-1])
    padded = padded.index_put(place, sentences)  # (B, s_max, J)
    return torch.bmm(padded, embeddings.transpose(1, 2))[place]  # (S, U)
