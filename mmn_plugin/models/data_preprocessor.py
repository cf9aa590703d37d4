"""Data preprocessors: from samples to a batch."""

from collections.abc import Sequence

import torch
from mmaction.registry import MODELS, TOKENIZER
from mmengine.model import BaseDataPreprocessor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import SentenceBatch, TokenIds


@MODELS.register_module()
class GroundingDataPreprocessor(BaseDataPreprocessor):
    """Stack the videos of a batch and lay their sentences end to end.

    The tokenizer is set here and nowhere else. All sentences of a batch are tokenised in one call,
    so that no sample carries padding.

    Args:
        tokenizer (dict, optional): Config of the tokenizer; it is built when first needed, so that
            a checkpoint that carries its vocabulary can be used without the file. Defaults to None:
            the model takes sentences as text, and batches have no token ids.
        non_blocking (bool): Copy to the device without waiting; of use where the data loader pins
            memory. Defaults to True.

    Attributes:
        max_tokens (int | None): The language model's limit, set by the localizer; the tokenizer's
            ``max_length`` unless its config has its own.
    """

    def __init__(self, tokenizer: dict | None = None, non_blocking: bool = True):
        super().__init__(non_blocking=non_blocking)
        self._tokenizer_cfg = tokenizer
        self._tokenizer = None
        self.max_tokens = None

    @property
    def tokenizer(self):
        """The tokenizer, built from its config at the first use; None of a model without one."""
        if self._tokenizer is None and self._tokenizer_cfg is not None:
            self._tokenizer = TOKENIZER.build(
                self._tokenizer_cfg, default_args=dict(max_length=self.max_tokens)
            )
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, value) -> None:
        self._tokenizer = value

    def forward(self, data: dict, training: bool = False) -> dict:
        """Batch and move to the model's device.

        Args:
            data (dict): ``inputs``, a list of B tensors (R, D) or one (B, R, D), and
                ``data_samples``, a list of B ``GroundingDataSample``.
            training (bool): Not used; the same is done in training and test.

        Returns:
            dict: ``inputs`` (B, R, D) and ``sentences`` (``SentenceBatch``, or None without a
            tokenizer) on the model's device, ``data_samples`` as they are.

        Raises:
            ValueError: If the videos' features differ in shape.
        """
        samples = data['data_samples']  # stay on the host, where targets are looked for
        return dict(
            inputs=self._stack(self.cast_data(data['inputs']), samples),
            sentences=self.batch_sentences([sample.sentences for sample in samples]),
            data_samples=samples,
        )

    def _stack(self, features, samples) -> torch.Tensor:
        if torch.is_tensor(features):
            return features
        self._check_shapes([feature.shape for feature in features], samples)
        return torch.stack(list(features))  # (B, R, D)

    @staticmethod
    def _check_shapes(shapes: list, samples) -> None:
        if len(set(shapes)) > 1:
            listed = ', '.join(
                f'{sample.video_id}: {tuple(shape)}'
                for sample, shape in zip(samples, shapes, strict=True)
            )
            raise InputError(
                f'the features of a batch differ in shape ({listed}); pool them to one length '
                '(PoolClipFeatures), and extract all with the same networks'
            )

    def batch_sentences(self, sentences: Sequence[Sequence[str]]) -> SentenceBatch | None:
        """Sentences of B videos, tokenised, on the model's device; None without a tokenizer.

        Args:
            sentences (Sequence[Sequence[str]]): Those of each video.
        """
        if self.tokenizer is None:
            return None
        counts = torch.tensor([len(own) for own in sentences])
        token_ids = self.tokenizer.encode([sentence for own in sentences for sentence in own])
        input_ids, attention_mask = self.tokenizer.pad(token_ids)  # (S, L)
        video = torch.arange(len(sentences)).repeat_interleave(counts)  # (S,)
        tensors = self.cast_data([input_ids, attention_mask, video])
        return SentenceBatch(*tensors, token_ids=TokenIds(token_ids))


@MODELS.register_module()
class TubeDataPreprocessor(GroundingDataPreprocessor):
    """Lay the tubes of all videos of a batch end to end, and their sentences likewise.

    ``inputs`` becomes (T, R, D), the tubes of the first video first; how many are whose the data
    samples say. Args: as of `GroundingDataPreprocessor`.
    """

    def _stack(self, features, samples) -> torch.Tensor:
        for tubes, sample in zip(features, samples, strict=True):
            if tubes.ndim != 3 or len(tubes) != len(sample.tubes):
                raise InputError(
                    f'video {sample.video_id!r} has {len(sample.tubes)} tubes, but features of '
                    f'shape {tuple(tubes.shape)}; expected (tubes, segments, size)'
                )
        self._check_shapes([tubes.shape[1:] for tubes in features], samples)
        return torch.cat(list(features))  # (T, R, D)
