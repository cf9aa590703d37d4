"""MSCL's head: losses and predictions from the scores of a video's clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.negatives import on
from mmn_plugin.models.ranking import moment_scores, score_runs, score_stretches, trusted
from mmn_plugin.structures import GroundingDataSample, MomentGrid, VideoEmbedding

from .base_head import BaseHead, unit_vectors


@MODELS.register_module()
class ScoreCurveHead(BaseHead):
    """Score every clip against a sentence; moments are the runs of high scores.

    A clip's score is its cosine, brought into [0, 1]. In training videos and sentences find each
    other through it, and each stage contrasts foreground and background at one scale. At test the
    runs above ``run_thresholds``, which overlap, are the candidates, of score ``weight *
    (0.5 * contrast + 0.5)``, contrast being the mean score inside minus that outside, and weight
    1 for the first threshold's runs and less for others (`score_runs`); NMS follows. Curves of real
    language are less sharp than the runs ask for: without thresholds every stretch of clips is a
    candidate, of score ``0.5 * x + 0.5`` with x as of `score_stretches`.

    Args:
        grid (MomentGrid): The N clips; the localizer passes it.
        loss_matching (dict): Config of the video-level loss.
        loss_contrast (dict): Config of the loss of a stage.
        windows (Sequence[int]): Clips per window of each stage, coarse to fine; empty for the
            video-level loss alone.
        contrast_weight (float): Weight of the mean over the stages.
        run_thresholds (Sequence[float] | None): Relative thresholds of the runs, the one that most
            often gives the moment first. None: all stretches of clips instead of runs.
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        threshold_halving (float): Distance from the first threshold at which a run's weight is
            0.5. Defaults to 0.3.
        negatives (dict, optional): As of `BaseHead`, for the video-level loss. Defaults to None.
        around_weight (float): Of stretches, see `score_stretches`. Defaults to 0.5.
        length_weight (float): Likewise. Defaults to 0.
        curves (bool): As of `BaseHead`. Defaults to False.

    Attributes:
        grid (MomentGrid): All moments of N clips: the runs that can be.
        active_stages (int): Stages that train so far, all of them unless ``ContrastStageHook``
            says when each begins.

    Raises:
        ValueError: If windows rise or are below 1, if ``run_thresholds`` is empty or one is not
            in (0, 1), or if ``threshold_halving`` is not above 0.
    """

    known_negatives = (  # all but how BatchNorm has its statistics: there is none
        *('scope', 'weight', 'exclude_same_text', 'exclude_similar', 'videos_per_step', 'piece'),
    )

    def __init__(
        self,
        grid: MomentGrid,
        loss_matching: dict,
        loss_contrast: dict,
        windows: Sequence[int],
        contrast_weight: float,
        run_thresholds: Sequence[float] | None,
        nms_threshold: float,
        top_n: int = 5,
        threshold_halving: float = 0.3,
        negatives: dict | None = None,
        around_weight: float = 0.5,
        length_weight: float = 0.0,
        curves: bool = False,
    ):
        super().__init__(grid, nms_threshold, top_n, negatives, curves=curves)
        falling = list(windows) == sorted(windows, reverse=True) and min(windows, default=1) >= 1
        thresholds = None if run_thresholds is None else list(run_thresholds)
        inside = thresholds is None or (thresholds and all(0 < share < 1 for share in thresholds))
        if not (falling and inside and threshold_halving > 0):
            raise InputError(
                f'model.head: windows={list(windows)}, run_thresholds={thresholds}, '
                f'threshold_halving={threshold_halving}; give windows of 1 clip or more, coarse to '
                'fine, thresholds between 0 and 1, and a distance of thresholds above 0'
            )
        self.grid = MomentGrid(grid.num_clips, [grid.num_clips - 1])
        self.loss_matching = MODELS.build(loss_matching)
        self.loss_contrast = MODELS.build(loss_contrast)
        self.windows = tuple(windows)
        self.active_stages = len(self.windows)
        self.stages = (*(f'stage{k}' for k in range(len(self.windows))), 'contrastive')
        self.contrast_weight = contrast_weight
        self.run_thresholds = thresholds and tuple(thresholds)
        self.around_weight, self.length_weight = around_weight, length_weight
        self.threshold_halving = threshold_halving

    def loss(
        self,
        embeddings: dict[str, Tensor],
        sentences: dict[str, Tensor],
        sentence_video: Tensor,
        data_samples: list[GroundingDataSample],
    ) -> dict[str, Tensor]:
        """``loss_vid``, ``loss_sent``, and ``loss_stage1`` ... of the stages that have begun.

        Args: as of `BaseHead`. Embeddings are L2-normalized clips before any stage and after each,
        as `FrameNeck` names them; videos and sentences find each other through the last stage that
        has begun. Of the samples ids and texts are looked at, and whether a sentence is known
        not to occur; nothing else.

        Raises:
            InputError: If a sentence does not occur in its video.
        """
        _require_occurring(data_samples)
        with torch.autocast(sentence_video.device.type, enabled=False):
            queries = unit_vectors(sentences)['contrastive']  # (S, J)
            stages = [embeddings[name] for name in self.stages]
            refined = stages[self.active_stages]  # (B, N, J)
            own = self.candidates(refined, queries, data_samples, meaning=sentences.get('meaning'))
            negatives = self.negatives.collect(own)
            loss_vid, loss_sent = self.loss_matching(own, negatives)
            losses = dict(
                loss_vid=self.contrastive_factor * loss_vid,
                loss_sent=self.contrastive_factor * loss_sent,
            )
            weight = self.contrast_weight / max(1, len(self.windows))
            texts = on(np.unique(own.texts, return_inverse=True)[1], queries.device)
            for k, window in enumerate(self.windows[: self.active_stages]):
                losses[f'loss_stage{k + 1}'] = weight * self.loss_contrast(
                    stages[k], stages[k + 1], queries, sentence_video, texts, window
                )
            return negatives.scale(losses)

    def fuse(self, cosines: dict[str, Tensor], video: VideoEmbedding, counts=None) -> Tensor:
        """Score in [0, 1] of each clip for each sentence, (S, N)."""
        return 0.5 * cosines['contrastive'].clamp(-1, 1) + 0.5

    def presence_of(self, video: VideoEmbedding, cosines: dict[str, Tensor]) -> Tensor:
        """The largest contrast of any stretch of clips with the rest of its video, (S,)."""
        return self._candidates(self.fuse(cosines, video))[0].amax(1)

    def curve(self, video: VideoEmbedding, scores: Tensor) -> Tensor:
        """The scores (S, N) themselves, on the CPU."""
        return scores.cpu()

    def proposals(self, video: VideoEmbedding, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Runs of each sentence's scores, or all stretches; 0 where a moment is no candidate.

        Raises:
            ValueError: If the video was encoded in several windows: a curve is of the whole video.
        """
        return self._spans(video), moment_scores(*self._candidates(scores), power=1.0)

    def _spans(self, video: VideoEmbedding) -> Tensor:
        """Seconds (..., P, 2) of the moments of the grid."""
        spans = video.spans
        if spans.shape[-2] != self.grid.num_clips:
            raise InputError(
                f'{spans.shape[-2]} clips, but a score curve has {self.grid.num_clips}: encode '
                'the video as one window, however long it is'
            )
        starts, ends = self.grid.clips_on(spans.device)
        return torch.stack([spans[..., starts, 0], spans[..., ends, 1]], dim=-1)

    def library_units(self, video: VideoEmbedding) -> VideoEmbedding:
        """Every stretch of clips, (P, J): the mean of its clips minus ``around_weight`` times that
        around it, so that its product with a sentence is `score_stretches` of the cosines.

        So it is with ``run_thresholds`` too: which stretches are runs depends on the sentence, and
        a library searches all of them.

        Raises:
            ValueError: If the video was encoded in several windows.
        """
        spans, clips = self._spans(video), video.embeddings['contrastive']  # (N, J)
        one_by_one = torch.eye(len(clips), device=clips.device, dtype=clips.dtype)
        weights = score_stretches(one_by_one, self.grid, self.around_weight, 0.0)  # (N, P)
        return replace(video, embeddings=dict(contrastive=weights.T @ clips), spans=spans)

    def library_score(self, settings: Mapping) -> 'StretchScore':
        """The score of stretches without ``run_thresholds``; see `BaseHead`."""
        return StretchScore(self.around_weight, self.length_weight)

    def _candidates(self, curves: Tensor) -> tuple[Tensor, Tensor]:
        """Contrast and weight (S, P) of the moments of the grid."""
        if self.run_thresholds is None:
            contrast = score_stretches(curves, self.grid, self.around_weight, self.length_weight)
            return contrast.clamp(-1, 1), torch.ones_like(contrast)
        return score_runs(curves, self.run_thresholds, self.grid, self.threshold_halving)


def _require_occurring(data_samples: list[GroundingDataSample]) -> None:
    """Refuse a sentence that is known not to occur: it would be a positive of its video."""
    for sample in data_samples:
        windows = sample.windows if 'gt_instances' in sample else ()
        for sentence, own in zip(sample.sentences, windows, strict=False):
            if not len(own):
                raise InputError(
                    f'video {sample.video_id!r}, sentence {sentence!r} does not occur in its '
                    'video, and training without timestamps would learn that it does: set '
                    'weak=True in the training dataset, which leaves such sentences out'
                )


@dataclass(frozen=True)
class StretchScore:
    """The score of `ScoreCurveHead` for stretches of clips of any number of videos, in float64.

    With a product p of a sentence with `ScoreCurveHead.library_units`, ``0.5 * x + 0.5`` of
    ``x = 0.5 * p + 0.5 * (1 - around_weight) + length_weight * log(length)``: a clip's score is
    ``0.5 * cosine + 0.5``.

    Attributes:
        around_weight (float): As of the head.
        length_weight (float): Likewise.
    """

    around_weight: float
    length_weight: float
    spaces = ('contrastive',)

    def __call__(
        self, products: dict[str, Tensor], lengths: Tensor, trust: Tensor | None = None
    ) -> Tensor:
        """Scores (...) of products (...); see ``BaseHead.library_score``."""
        contrast = 0.5 * products['contrastive'].double() + 0.5 * (1 - self.around_weight)
        contrast = contrast + self.length_weight * lengths.double().log()
        return trusted(0.5 * contrast.clamp(-1, 1) + 0.5, trust)
