"""Mutual Matching Network."""

import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.models.ranking import moment_scores
from mmn_plugin.structures import GroundingDataSample, MomentGrid, SentenceBatch

from .base_localizer import ClipLocalizer


@MODELS.register_module()
class MMN(ClipLocalizer):
    """Mutual Matching Network, of "Negative Sample Matters: A Renaissance of Metric Learning for
    Temporal Grounding" (AAAI 2022).

    Moments and sentences are embedded, independently of each other, in one space; a moment's
    score for a sentence is a cosine.

    Args:
        grid (dict): ``num_clips`` and ``pooling_counts``: the moments that exist.
        backbone (dict): Config of the clip encoder.
        neck (dict): Config of the moment-map neck.
        text_encoder (dict): Config of the sentence encoder.
        head (dict): Config of the mutual-matching head.
        data_preprocessor (dict): Config of the data preprocessor, with the tokenizer.
        init_cfg (dict, optional): Initialisation. Defaults to None.
    """

    num_clips_option = 'model.grid.num_clips'

    def __init__(
        self,
        grid: dict,
        backbone: dict,
        neck: dict,
        text_encoder: dict,
        head: dict,
        data_preprocessor: dict,
        init_cfg: dict | None = None,
    ):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.grid = MomentGrid(**grid)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck, default_args=dict(grid=self.grid))
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens
        self._check_sizes(neck, text_encoder, head)

    def _check_sizes(self, neck: dict, text_encoder: dict, head: dict) -> None:
        self.check_joint_space(neck, text_encoder)
        positives = head.get('loss_matching', {}).get('num_positive', 1)
        if positives > self.grid.num_moments:
            raise InputError(
                f'model.head.loss_matching.num_positive={positives}, but {self.grid} '
                'has fewer moments'
            )

    @property
    def architecture(self) -> dict:
        """What a checkpoint's weights do not show in their shapes, as plain data."""
        return dict(
            num_clips=self.grid.num_clips,
            pooling_counts=list(self.grid.pooling_counts),
            moment_map=type(self.neck.moment_map).__name__,
            segments_per_clip=[self.backbone.pool.kernel_size[0], self.backbone.pool.stride[0]],
        )

    def forward(
        self,
        inputs: Tensor,
        sentences: SentenceBatch,
        data_samples: list[GroundingDataSample] | None = None,
        mode: str = 'tensor',
    ):
        """Embed moments and sentences, then compute losses or predictions.

        Args:
            inputs (Tensor): (B, R, D) pooled features.
            sentences (SentenceBatch): All sentences of the batch.
            data_samples (list[GroundingDataSample], optional): Needed but for ``'tensor'``.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'`` (the embeddings themselves).

        Returns:
            dict[str, Tensor] | list[GroundingDataSample] | tuple: By mode.

        Raises:
            ValueError: If the features' size is not the backbone's ``in_channels``.
            RuntimeError: If the mode is unknown.
        """
        moments = self.encode_moments(inputs, data_samples)  # each (B, P, J)
        embeddings = self.text_encoder(sentences)  # each (S, J)
        if mode == 'loss':
            return self.head.loss(moments, embeddings, sentences.video, data_samples)
        if mode == 'predict':
            return self.head.predict(moments, embeddings, sentences.video, data_samples)
        if mode == 'tensor':
            return moments, embeddings
        raise RuntimeError(f"mode is 'loss', 'predict' or 'tensor', not {mode!r}")

    @torch.no_grad()
    def score_moments(self, inputs: Tensor, data_sample: GroundingDataSample) -> Tensor:
        """Score of every moment of one video before NMS, for pictures.

        Args:
            inputs (Tensor): (R, D) pooled features.
            data_sample (GroundingDataSample): The video with s sentences.

        Returns:
            Tensor: (s, P), on the model's device.
        """
        batch = self.data_preprocessor(dict(inputs=[inputs], data_samples=[data_sample]))
        moments, embeddings = self(**batch, mode='tensor')
        contrastive, iou = self.head.score(
            moments, embeddings, batch['sentences'].video, [len(data_sample.sentences)]
        )  # (s, P)
        return moment_scores(contrastive, iou, self.head.score_power)

    def encode_moments(self, inputs: Tensor, data_samples=None) -> dict[str, Tensor]:
        """Embed all moments of the videos: (B, R, D) -> ``iou`` and ``contrastive`` (B, P, J)."""
        return self.neck(self.encode_clips(inputs, data_samples))
