"""Scores of a tower's cosines, without training."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.models.negatives import on
from mmn_plugin.structures import MomentGrid, VideoEmbedding

from .base_head import BaseHead, owners

UNRELATED = Path(__file__).with_name('unrelated_sentences.txt')
LEAST = 1e-30  # of a score: one of 0 is no moment to rank
CELLS = 1 << 22  # scores of unrelated sentences held at once


@dataclass(frozen=True)
class MeanScore:
    """The cosine of the mean inside of the moment."""

    spaces: ClassVar = ('tower',)

    def __call__(self, cosines: dict[str, Tensor]) -> Tensor:
        """(S, U) from (S, U) per space."""
        return cosines['tower']


@dataclass(frozen=True)
class ContrastScore:
    """The cosine inside minus a share of that with what surrounds the moment.

    Attributes:
        weight (float): The share. Defaults to 0.5.
    """

    weight: float = 0.5
    spaces: ClassVar = ('tower', 'around')

    def __call__(self, cosines: dict[str, Tensor]) -> Tensor:
        """(S, U) from (S, U) per space."""
        return cosines['tower'] + self.weight * cosines['around']  # which is negated


@dataclass(frozen=True)
class RiseScore:
    """How much the cosine rises at the moment's start, how steady it is inside, and its mean.

    After the training-free methods of TFVTG (ECCV 2024) and TAG, in the cosines of stretches of
    the moment: the rise is that of the first third minus that of the stretch before it, the
    steadiness the least one of the three thirds.

    Attributes:
        rise (float): Weight of the rise. Defaults to 0.5.
        steadiness (float): Weight of the least third. Defaults to 0.5.
        mean (float): Weight of the mean inside. Defaults to 0.5. On the validation split of the
            captions 0.5, 0.5 and 1 were best (docs/zero_shot.md).
    """

    rise: float = 0.5
    steadiness: float = 0.5
    mean: float = 0.5

    @property
    def spaces(self) -> tuple[str, ...]:
        """The mean's space only where it has a weight: each one costs memory and time."""
        return (*(('tower',) if self.mean else ()), 'before', 'first', 'middle', 'last')

    def __call__(self, cosines: dict[str, Tensor]) -> Tensor:
        """(S, U) from (S, U) per space."""
        rise = cosines['first'] + cosines['before']  # which is negated
        least = torch.minimum(torch.minimum(cosines['first'], cosines['middle']), cosines['last'])
        value = self.rise * rise + self.steadiness * least
        return value + self.mean * cosines['tower'] if self.mean else value


SCORES = dict(mean=MeanScore, contrast=ContrastScore, rise=RiseScore)


def build_score(type: str, **weights: float):
    """A score by its name.

    Raises:
        ValueError: If there is none of this name, it has no such weight, or one is below 0: it
            would fall where a cosine rises.
    """
    if type not in SCORES:
        raise InputError(f'model.head.score.type={type!r}; it must be one of {list(SCORES)}')
    known = [field.name for field in fields(SCORES[type])]
    for name, weight in weights.items():
        if name not in known or not weight >= 0:
            raise InputError(
                f'model.head.score: {name}={weight!r}; {type!r} takes weights of at least 0 '
                f'named {known}'
            )
    return SCORES[type](**weights)


@MODELS.register_module()
class ZeroShotHead(BaseHead):
    """Score moments by cosines of a frozen tower; there is nothing to train.

    A score x of cosines becomes

        sigmoid(scale * (x + length_weight * log(length) - center))

    with the moment's length as a share of the video (of a window, of a long video). That rises in
    every cosine, and lies in [0, 1]; it is at least 1e-30. It is no probability, but for the mean
    score of a tower that was trained with a sigmoid (SigLIP), with ``scale='tower'``.

    Presence is a percentile, for which no label is needed: K unrelated sentences are scored in the
    same video, and a sentence whose best score s is above those of k of them has the presence
    ``(k + s) / (K + 1)``. It means the same in a video of any length.

    Args:
        grid (MomentGrid): The moments that exist; the localizer passes it.
        tower (SentenceTower): What embeds the unrelated sentences; the localizer passes it.
        score (dict): ``type`` and weights: ``'mean'`` (`MeanScore`), ``'contrast'``
            (`ContrastScore`), ``'rise'`` (`RiseScore`).
        nms_threshold (float): Moments that overlap a better one by more are suppressed.
        top_n (int): Moments kept per sentence. Defaults to 5.
        scale (float | str): Factor before the sigmoid, or ``'tower'``: logit scale and, as the
            center, logit bias of the tower. Steep scales round the best scores to 1. Defaults to
            10.
        center (float): Value of x that becomes 0.5. Defaults to 0.
        length_weight (float): Above 0 for longer moments, below 0 for shorter ones; chosen on
            validation. Defaults to 0.
        unrelated (Sequence[str] | str, optional): Sentences that are in no video, or a file with
            one per line. Defaults to None: the package's own, of everyday life.
        curves (bool): As of `BaseHead`. Defaults to False.

    Attributes:
        tower_spaces (tuple[str, ...]): Spaces that the score needs, see `TowerPool`.

    Raises:
        ValueError: If there is no such score, a weight of it is below 0, or ``scale`` is not above
            0, or there is no unrelated sentence.
    """

    def __init__(
        self,
        grid: MomentGrid,
        tower,
        score: dict,
        nms_threshold: float,
        top_n: int = 5,
        scale: float | str = 10.0,
        center: float = 0.0,
        length_weight: float = 0.0,
        unrelated: Sequence[str] | str | None = None,
        curves: bool = False,
    ):
        super().__init__(grid, nms_threshold, top_n, curves=curves)
        self.moment_map = grid
        self.tower = tower
        self.combine = build_score(**score)
        if scale != 'tower' and not scale > 0:
            raise InputError(f"model.head.scale={scale}; it must be above 0, or 'tower'")
        self.scale, self.center, self.length_weight = scale, center, length_weight
        self.unrelated = read_sentences(unrelated)
        self._unrelated_vectors: Tensor | None = None

    joint_spaces = ()

    @property
    def tower_spaces(self) -> tuple[str, ...]:
        """Spaces that the score needs."""
        return self.combine.spaces

    def loss(self, embeddings, sentences, sentence_video, data_samples) -> dict[str, Tensor]:
        """There is none.

        Raises:
            ValueError: Always.
        """
        raise InputError(
            'zero-shot grounding has no weights to train: test it, or train MMN on the same '
            'features with model.tower and model.head.tower_weight'
        )

    def fuse(
        self,
        cosines: dict[str, Tensor],
        video: VideoEmbedding,
        counts: list[int] | None = None,
    ) -> Tensor:
        """The formula of the class, (S, U)."""
        values = self.combine(cosines)
        if self.length_weight:
            lengths = self._log_lengths(video)  # (U,) or (B, U)
            if counts is not None:
                lengths = lengths[on(owners(counts), lengths.device)]
            values = values + self.length_weight * lengths
        scale, center = self.scale_and_center()
        return (scale * (values - center)).sigmoid().clamp(min=LEAST)

    @staticmethod
    def _log_lengths(video: VideoEmbedding) -> Tensor:
        """Logarithm of each moment's length as a share of what was looked at at once."""
        seconds = torch.as_tensor(video.duration, dtype=torch.float32) / video.length_in_windows
        lengths = video.spans[..., 1] - video.spans[..., 0]
        return (lengths / on(seconds.numpy(), lengths.device)[..., None]).clamp(min=1e-6).log()

    def scale_and_center(self) -> tuple[float, float]:
        """Both numbers, of the tower where it is asked for.

        Raises:
            ValueError: If the tower has no logit scale above 0.
        """
        if self.scale != 'tower':
            return self.scale, self.center
        scale = self.tower.logit_scale
        if not scale or scale < 0:
            given = 'no logit scale' if scale is None else f'the logit scale {scale:g}'
            raise InputError(
                f"model.head.scale='tower', but the tower has {given}: give a number above 0"
            )
        return scale, -(self.tower.logit_bias or 0.0) / scale

    def presence_of(self, video: VideoEmbedding, cosines: dict[str, Tensor]) -> Tensor:
        """The percentile among the unrelated sentences, (S,); see the class."""
        if video.unrelated is None:
            video.unrelated = self._best_unrelated(video)
        best = self._scores(video, cosines).amax(1)  # (S,)
        below = torch.searchsorted(video.unrelated, best)
        return (below + best) / (len(video.unrelated) + 1)

    def _best_unrelated(self, video: VideoEmbedding) -> Tensor:
        """(K,) best scores of the unrelated sentences in a video, rising.

        They are statements, and embedded as they are. Sentences that hold no word that the tower
        knows are left out.
        """
        if self._unrelated_vectors is None:
            inspected = self.tower.inspect(self.unrelated, rewrite=False)
            pairs = zip(self.unrelated, inspected, strict=True)
            known = [sentence for sentence, (_, problem) in pairs if problem is None]
            if not known:
                raise InputError(
                    'the tower knows no word of the sentences of model.head.unrelated: give others '
                    'there, in its language'
                )
            self._unrelated_vectors = self.tower.encode_sentences(known, rewrite=False)
        vectors = self._unrelated_vectors.to(video.spans.device)
        parts = vectors.split(max(CELLS // max(len(video.spans), 1), 1))
        spaces = [dict.fromkeys(self.tower_spaces, part) for part in parts]
        return torch.cat([self.score(video, part).amax(1) for part in spaces]).sort().values


def read_sentences(given: Sequence[str] | str | None) -> list[str]:
    """Sentences of a list, or of the lines of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no sentence.
    """
    if given is None or isinstance(given, str):
        path = Path(given or UNRELATED)
        if not path.is_file():
            raise MissingFileError(f'model.head.unrelated: there is no file {path}')
        given = path.read_text(encoding='utf-8').splitlines()
    sentences = [sentence.strip() for sentence in given if sentence.strip()]
    if not sentences:
        raise InputError('model.head.unrelated holds no sentence; give some, one per line')
    return sentences
