"""Losses and predictions from the scores of a video's clips."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import Candidates, NegativeSource
from mmn_plugin.models.ranking import moment_scores, score_runs
from mmn_plugin.structures import GroundingDataSample, MomentGrid, normalised_text

from .base_head import rank_moments


@MODELS.register_module()
class ScoreCurveHead(BaseModule):
    """Score every clip against a sentence; moments are the runs of high scores.

    A clip's score is its cosine, brought into [0, 1]. In training videos and sentences find each
    other through it, and each stage contrasts foreground and background at one scale. At test the
    runs above ``run_thresholds``, which overlap, are the candidates, of score ``weight *
    (0.5 * contrast + 0.5)``, contrast being the mean score inside minus that outside, and weight
    1 for the first threshold's runs and less for others (`score_runs`); NMS follows.

    Args:
        grid (MomentGrid): All moments of N clips; the localizer passes it.
        loss_matching (dict): Config of the video-level loss.
        loss_contrast (dict): Config of the loss of a stage.
        windows (Sequence[int]): Clips per window of each stage, coarse to fine; empty for the
            video-level loss alone.
        contrast_weight (float): Weight of the mean over the stages.
        run_thresholds (Sequence[float]): Relative thresholds of the runs, the one that most often
            gives the moment first.
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        threshold_halving (float): Distance from the first threshold at which a run's weight is
            0.5. Defaults to 0.3.
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Attributes:
        contrastive_factor (float): Scheduled factor on the video-level loss, 1 unless
            ``CrossVideoNegativeHook`` sets it.
        negatives (NegativeSource): Where the video-level loss's negatives come from: the batch,
            unless ``CrossVideoNegativeHook`` sets another source.
        active_stages (int): Stages that train so far, all of them unless ``ContrastStageHook``
            says when each begins.

    Raises:
        ValueError: If windows rise or are below 1, if ``run_thresholds`` is empty or one is not
            in (0, 1), or if ``threshold_halving`` is not above 0.
    """

    # The inferencer fuses what `score` returns with this power; see `moment_scores`.
    score_power = 1.0

    def __init__(
        self,
        grid: MomentGrid,
        loss_matching: dict,
        loss_contrast: dict,
        windows: Sequence[int],
        contrast_weight: float,
        run_thresholds: Sequence[float],
        nms_threshold: float,
        top_n: int = 5,
        threshold_halving: float = 0.3,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if list(windows) != sorted(windows, reverse=True) or min(windows, default=1) < 1:
            raise InputError(
                f'model.head.windows={list(windows)}: give windows of 1 clip or more, '
                'none longer than the one before it (coarse to fine)'
            )
        if not run_thresholds or not all(0 < share < 1 for share in run_thresholds):
            raise InputError(
                f'model.head.run_thresholds={list(run_thresholds)}: give thresholds between 0 and 1'
            )
        if threshold_halving <= 0:
            raise InputError(
                f'model.head.threshold_halving={threshold_halving}: give a distance '
                'of thresholds above 0'
            )
        self.grid = grid
        self.register_buffer(
            '_single_clips', (grid.starts == grid.ends).nonzero()[:, 0], persistent=False
        )
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_contrast = MODELS.build(loss_contrast)
        self.windows = tuple(windows)
        self.active_stages = len(self.windows)
        self.contrast_weight = contrast_weight
        self.contrastive_factor = 1.0
        self.negatives = NegativeSource()
        self.run_thresholds = tuple(run_thresholds)
        self.threshold_halving = threshold_halving
        self.nms_threshold = nms_threshold
        self.top_n = top_n

    def loss(
        self,
        stages: list[Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> dict[str, Tensor]:
        """Weighted losses of a batch, in float32 under mixed precision too.

        Args:
            stages (list[Tensor]): K + 1 times (B, N, J), L2-normalised clips before any stage and
                after each. Videos and sentences find each other through the last stage that has
                begun.
            sentences (dict[str, Tensor]): ``contrastive`` (S, J).
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            data_samples (list[GroundingDataSample]): Ids and texts are looked at, nothing else.

        Returns:
            dict[str, Tensor]: ``loss_vid``, ``loss_sent`` and ``loss_stage1`` ...; their sum is
            the total. A stage that has not begun is not there.
        """
        with torch.autocast(sentence_video.device.type, enabled=False):
            queries = self._queries(sentences)  # (S, J)
            refined = stages[self.active_stages]  # (B, N, J)
            own = self.candidates(refined, queries, data_samples)
            negatives = self.negatives.collect(own, self.training)
            loss_vid, loss_sent = self.loss_matching(refined, queries, sentence_video, negatives)
            losses = dict(
                loss_vid=self.contrastive_factor * loss_vid,
                loss_sent=self.contrastive_factor * loss_sent,
            )
            weight = self.contrast_weight / max(1, len(self.windows))
            texts = np.unique(own.texts, return_inverse=True)[1]
            texts = torch.from_numpy(texts).to(queries.device, non_blocking=True)
            for k, window in enumerate(self.windows[: self.active_stages]):
                losses[f'loss_stage{k + 1}'] = weight * self.loss_contrast(
                    stages[k], stages[k + 1], queries, sentence_video, window, texts
                )
            return negatives.scale(losses)

    @staticmethod
    def candidates(
        clips: Tensor, sentences: Tensor, data_samples: list[GroundingDataSample]
    ) -> Candidates:
        """The batch with the names of its videos and the texts of its sentences; no moments."""
        counts = [len(sample.sentences) for sample in data_samples]
        return Candidates(
            clips,
            sentences,
            None,
            np.repeat(np.arange(len(counts)), counts),
            [sample.video_id for sample in data_samples],
            [normalised_text(text) for sample in data_samples for text in sample.sentences],
        )

    def predict(
        self,
        clips: Tensor,
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> list[GroundingDataSample]:
        """Rank the runs of each sentence's score curve.

        Args:
            clips (Tensor): (B, N, J), L2-normalised.
            sentences (dict[str, Tensor]): ``contrastive`` (S, J).
            sentence_video (Tensor): (S,), place in the batch of each sentence's video.
            data_samples (list[GroundingDataSample]): Ground truth, if any, is not looked at.

        Returns:
            list[GroundingDataSample]: The samples, with ``pred_instances``: as of `rank`, and
            ``curves`` (s, N), the score of each clip.
        """
        curves = self.curves(clips, sentences, sentence_video)  # (S, N)
        return self.rank_curves(curves, sentence_video, data_samples)

    def rank_curves(
        self, curves: Tensor, sentence_video: Tensor, data_samples: list[GroundingDataSample]
    ) -> list[GroundingDataSample]:
        """As `predict`, given the curves (S, N)."""
        scores = moment_scores(*self._score_runs(curves), self.score_power)
        return self.rank(scores, sentence_video, data_samples, curves=curves)

    def rank(
        self,
        scores: Tensor,
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
        **beside: Tensor,
    ) -> list[GroundingDataSample]:
        """Give the samples the best moments of their sentences after NMS.

        Args:
            scores (Tensor): (S, P); 0 where a moment is no run.
            sentence_video (Tensor): (S,), place of each sentence's video among the samples.
            data_samples (list[GroundingDataSample]): B videos.
            **beside (Tensor): (S, ...), further entries of ``pred_instances``.

        Returns:
            list[GroundingDataSample]: The samples, with ``pred_instances``: ``moments`` (s, n, 2)
            in seconds and ``scores`` (s, n), NaN-padded, and those beside, all on the CPU.
        """
        durations = torch.tensor([sample.duration for sample in data_samples])
        spans = self.grid.spans(durations.to(scores.device, non_blocking=True))  # (B, P, 2)
        return rank_moments(
            spans, scores, sentence_video, data_samples, self.nms_threshold, self.top_n, **beside
        )

    def curves(self, clips: Tensor, sentences: dict[str, Tensor], sentence_video: Tensor) -> Tensor:
        """Score in [0, 1] of each clip of its video for each sentence, (S, N) float32."""
        with torch.autocast(sentence_video.device.type, enabled=False):
            queries = self._queries(sentences)
            cosines = (clips[sentence_video] @ queries[..., None])[..., 0]
            return 0.5 * cosines.clamp(-1, 1) + 0.5

    def score(
        self,
        moments: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        counts: list[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Contrast of each moment, and its weight, 0 where it is no run, both (S, P).

        `moment_scores` of the two, with ``score_power``, is what `rank` takes. ``moments`` are
        (B, P, J), as `to_moments` gives them.
        """
        clips = moments['contrastive'][:, self._single_clips]
        return self._score_runs(self.curves(clips, sentences, sentence_video))

    def video_curves(self, moments: dict[str, Tensor], sentences: dict[str, Tensor]) -> Tensor:
        """Score of each clip of one video: (P, J) and (s, J) -> (s, N).

        Raises:
            ValueError: As `score_video`.
        """
        return self.curves(*self._one_video(moments, sentences))

    def score_video(
        self, moments: dict[str, Tensor], sentences: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """As `score`, of one video: (P, J) and (s, J) -> twice (s, P).

        Raises:
            ValueError: If the moments are not those of one window of N clips.
        """
        return self._score_runs(self.video_curves(moments, sentences))

    def to_moments(self, clips: Tensor) -> Tensor:
        """Clips in the places of the moments of a single clip: (B, N, J) -> (B, P, J)."""
        moments = clips.new_zeros(len(clips), self.grid.num_moments, clips.shape[-1])
        moments[:, self._single_clips] = clips
        return moments

    @staticmethod
    def normalise(embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
        """As they are: clips leave the neck as unit vectors."""
        return embeddings

    def _one_video(self, moments: dict[str, Tensor], sentences: dict[str, Tensor]) -> tuple:
        clips = moments['contrastive']
        if len(clips) != self.grid.num_moments:
            raise InputError(
                f'{len(clips)} moments, but a score curve has {self.grid.num_clips} '
                f'clips and {self.grid.num_moments} moments: give the video as one '
                'window, however long it is'
            )
        first = torch.zeros(len(sentences['contrastive']), dtype=torch.int64, device=clips.device)
        return clips[None, self._single_clips], sentences, first

    def _score_runs(self, curves: Tensor) -> tuple[Tensor, Tensor]:
        return score_runs(curves, self.run_thresholds, self.grid, self.threshold_halving)

    @staticmethod
    def _queries(sentences: dict[str, Tensor]) -> Tensor:
        embeddings = sentences['contrastive']
        return F.normalize(
            embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1
        )
