"""Weakly-supervised grounding by multi-scale self-contrast."""

import torch
from mmaction.registry import MODELS
from torch import Tensor

from mmn_plugin.structures import GroundingDataSample, MomentGrid, SentenceBatch

from .base_localizer import ClipLocalizer


@MODELS.register_module()
class MSCL(ClipLocalizer):
    """Learns when from which sentence belongs to which video, after "Multi-Scale Self-Contrastive
    Learning with Hard Negative Mining for Weakly-Supervised Query-based Video Grounding" (2022).

    Clips (the paper's frames) and sentences are embedded, independently of each other, in one
    space; a clip's score for a sentence follows from their cosine, and moments are the runs of
    high scores. Training looks at no timestamp: samples need no ground truth.

    Args:
        num_clips (int): Clips of a video (N), whatever its length.
        backbone (dict): Config of the clip encoder.
        neck (dict): Config of the frame neck.
        text_encoder (dict): Config of the sentence encoder, of one space, ``contrastive``.
        head (dict): Config of the score-curve head.
        data_preprocessor (dict): Config of the data preprocessor, with the tokenizer.
        init_cfg (dict, optional): Initialisation. Defaults to None.

    Raises:
        ValueError: If the joint space has two sizes.
    """

    num_clips_option = 'model.num_clips'

    def __init__(
        self,
        num_clips: int,
        backbone: dict,
        neck: dict,
        text_encoder: dict,
        head: dict,
        data_preprocessor: dict,
        init_cfg: dict | None = None,
    ):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.check_joint_space(neck, text_encoder)
        self.grid = MomentGrid(num_clips, [num_clips - 1])  # any run of clips is a moment
        self.backbone = MODELS.build(backbone)
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.neck = MODELS.build(neck, default_args=dict(num_stages=len(self.head.windows)))
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens

    @property
    def architecture(self) -> dict:
        """What a checkpoint's weights do not show in their shapes, as plain data."""
        return dict(
            num_clips=self.grid.num_clips,
            windows=list(self.head.windows),
            segments_per_clip=[self.backbone.pool.kernel_size[0], self.backbone.pool.stride[0]],
        )

    def forward(
        self,
        inputs: Tensor,
        sentences: SentenceBatch,
        data_samples: list[GroundingDataSample] | None = None,
        mode: str = 'tensor',
    ):
        """Embed clips and sentences, then compute losses or predictions.

        Args:
            inputs (Tensor): (B, R, D) pooled features.
            sentences (SentenceBatch): All sentences of the batch.
            data_samples (list[GroundingDataSample], optional): Needed but for ``'tensor'``; without
                ground truth.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'`` (the embeddings themselves).

        Returns:
            dict[str, Tensor] | list[GroundingDataSample] | tuple: By mode.

        Raises:
            ValueError: If the features' size is not the backbone's ``in_channels``.
            RuntimeError: If the mode is unknown.
        """
        embeddings = self.text_encoder(sentences)  # (S, J)
        if mode == 'loss':
            stages = self.neck(self.encode_clips(inputs, data_samples))  # K + 1 times (B, N, J)
            return self.head.loss(stages, embeddings, sentences.video, data_samples)
        clips = self.embed_clips(inputs, data_samples)  # (B, N, J)
        if mode == 'predict':
            return self.head.predict(clips, embeddings, sentences.video, data_samples)
        if mode == 'tensor':
            return clips, embeddings
        raise RuntimeError(f"mode is 'loss', 'predict' or 'tensor', not {mode!r}")

    def encode_moments(self, inputs: Tensor, data_samples=None) -> dict[str, Tensor]:
        """All of a video that scores need: (B, R, D) -> ``contrastive`` (B, P, J).

        A moment's score follows from its clips', so only moments of a single clip have something
        to tell; the others are zero.
        """
        return dict(contrastive=self.head.to_moments(self.embed_clips(inputs, data_samples)))

    def embed_clips(self, inputs: Tensor, data_samples=None) -> Tensor:
        """Embed the clips in the joint space: (B, R, D) -> (B, N, J), L2-normalised."""
        return self.neck(self.encode_clips(inputs, data_samples))[-1]

    @torch.inference_mode()
    def curves_by_stage(self, batch: dict) -> list[Tensor]:
        """Score curves before any refinement and after each stage, for pictures.

        Args:
            batch (dict): ``inputs`` and ``data_samples``, as a data loader gives them.

        Returns:
            list[Tensor]: K + 1 times (S, N), for all sentences of the batch.
        """
        data = self.data_preprocessor(batch)
        embeddings = self.text_encoder(data['sentences'])
        stages = self.neck(self.encode_clips(data['inputs'], data['data_samples']))
        return [self.head.curves(clips, embeddings, data['sentences'].video) for clips in stages]
