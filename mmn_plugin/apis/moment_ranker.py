"""Rank the moments of an encoded video."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.models import moment_scores, rank
from mmn_plugin.structures import GroundingDataSample, MomentGrid

from .video_encoder import EncodedVideo


def video_curves(grid: MomentGrid, encoded: EncodedVideo, scores: Tensor) -> Tensor:
    """Curves that a timeline draws.

    Args:
        grid (MomentGrid): The model's.
        encoded (EncodedVideo): The video.
        scores (Tensor): (s, U) scores of its moments, before NMS.

    Returns:
        Tensor: (s, K) float32; K is the grid's clips, or, of a video in windows, an even division.
    """
    # matplotlib, which comes with it, is of no use to those who draw nothing
    from mmn_plugin.visualization import score_curve, span_curve

    if encoded.num_windows == 1:
        return score_curve(grid, scores)
    return torch.stack([span_curve(encoded.spans, row, encoded.duration) for row in scores])


# Scores held at once, in float32: long videos have many moments, some callers many sentences.
_CELLS = 1 << 24


class MomentRanker:
    """Ranks moments; keeps no state, so that threads may share it.

    Args:
        model (nn.Module): An ``MMN``, in evaluation mode.
        sentence_batch (int): Sentences that go through the model together, at most.
    """

    def __init__(self, model: nn.Module, sentence_batch: int):
        self.model = model
        self.sentence_batch = sentence_batch

    @torch.inference_mode()
    def predict(
        self, encoded: EncodedVideo, sentences: list[str], top_n: int
    ) -> GroundingDataSample:
        """Data sample whose ``pred_instances`` hold ``moments`` (s, n, 2), ``scores`` (s, n) and
        ``presence`` (s,), on the CPU.

        Presence is a sentence's largest cosine with any moment in the contrastive space, which is
        trained over videos: of all that the model says, that tells best whether it occurs.
        """
        found = []
        for sample in self._batches(encoded, sentences):
            scores, presence = self._score(encoded, sample)
            moments, best, presence = rank(
                encoded.spans, scores, self.model.head.nms_threshold, top_n, beside=[presence]
            )
            found.append(InstanceData(moments=moments, scores=best, presence=presence))
        result = self._sample(encoded, sentences)
        result.pred_instances = InstanceData.cat(found)
        return result

    @torch.inference_mode()
    def score(self, encoded: EncodedVideo, sentences: list[str]) -> Tensor:
        """Score of every moment, before NMS: (s, U), on the CPU."""
        return torch.cat(
            [self._score(encoded, sample)[0].cpu() for sample in self._batches(encoded, sentences)]
        )

    @torch.inference_mode()
    def curves(self, encoded: EncodedVideo, sentences: list[str]) -> Tensor:
        """Scores over time: (s, K), on the CPU; see `video_curves`.

        A model that scores clips gives those scores, K being its number of clips.
        """
        head = self.model.head
        if not hasattr(head, 'video_curves'):
            return video_curves(self.model.grid, encoded, self.score(encoded, sentences))
        return torch.cat(
            [
                head.video_curves(encoded.moments, self._embed(sample)).cpu()
                for sample in self._batches(encoded, sentences)
            ]
        )

    def check(self, sentences: str | Sequence[str]) -> list[str]:
        """Sentences as a list.

        Raises:
            ValueError: If there is none, or one is empty or holds no word that the model knows.
        """
        if isinstance(sentences, np.ndarray):
            sentences = sentences.tolist()
        try:
            sentences = [sentences] if isinstance(sentences, str) else list(sentences)
        except TypeError:
            raise InputError(f'sentences={sentences!r}: give a sentence, or a list') from None
        if not sentences:
            raise InputError('no sentence was given; give at least one')
        for sentence in sentences:
            if sentence is not None and not isinstance(sentence, str):
                raise InputError(f'the sentence {sentence!r} is no text (str)')
            if sentence is None or not sentence.strip():
                raise InputError(f'the sentence {sentence!r} is empty; say what to look for')
        inspected = self.model.data_preprocessor.tokenizer.inspect(sentences)
        for sentence, (_, problem) in zip(sentences, inspected, strict=True):
            if problem:
                raise InputError(
                    f'the sentence {sentence!r} {problem}; the model cannot know what '
                    'it means. Use words that it was trained with'
                )
        return sentences

    def check_lists(self, sentences, num_videos: int | None) -> list[list[str]]:
        """Sentences of each video, checked.

        Args:
            sentences (str | Sequence[str] | Sequence[Sequence[str]]): The same for all videos, or
                a list or tuple of sentences for each.
            num_videos (int | None): None: one.

        Raises:
            ValueError: As of `check`, or if there is not one list per video.
        """
        if isinstance(sentences, np.ndarray):
            sentences = sentences.tolist()
        if num_videos is None:
            return [self.check(sentences)]
        nested = not isinstance(sentences, str) and any(
            isinstance(entry, list | tuple | np.ndarray) for entry in sentences
        )
        if not nested:
            return [self.check(sentences)] * num_videos
        if len(sentences) != num_videos:
            raise InputError(f'{num_videos} videos, but {len(sentences)} lists of sentences')
        return [self.check(entry) for entry in sentences]

    def _batches(
        self, encoded: EncodedVideo, sentences: list[str]
    ) -> Iterator[GroundingDataSample]:
        size = max(min(self.sentence_batch, _CELLS // len(encoded.spans)), 1)
        for first in range(0, len(sentences), size):
            yield self._sample(encoded, sentences[first : first + size])

    @staticmethod
    def _sample(encoded: EncodedVideo, sentences: list[str]) -> GroundingDataSample:
        return GroundingDataSample(
            metainfo=dict(
                video_id=encoded.video_id,
                duration=encoded.duration,
                length_in_windows=encoded.length_in_windows,
                sentences=sentences,
                sentence_index=list(range(len(sentences))),
            )
        )

    def _score(self, encoded: EncodedVideo, sample: GroundingDataSample) -> tuple[Tensor, Tensor]:
        """Scores (s, U) and presence (s,), on the model's device."""
        contrastive, iou = self.model.head.score_video(
            encoded.moments, self._embed(sample)
        )  # (s, U)
        scores = moment_scores(contrastive, iou, encoded.score_power)
        if encoded.num_windows > 1:
            scores *= encoded.trust
        return scores, contrastive.max(dim=1).values

    def _embed(self, sample: GroundingDataSample) -> dict[str, Tensor]:
        batch = self.model.data_preprocessor.batch_sentences([sample])
        return self.model.text_encoder(batch)  # (s, J) per space
