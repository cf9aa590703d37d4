"""Mutual Matching Network."""
from mmaction.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor

from mmn_plugin.structures import GroundingDataSample, MomentGrid, SentenceBatch


@MODELS.register_module()
class MMN(BaseModel):
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

    def __init__(self, grid: dict, backbone: dict, neck: dict, text_encoder: dict, head: dict,
                 data_preprocessor: dict, init_cfg: dict | None = None):
        super().__init__(MODELS.build(data_preprocessor), init_cfg)
        self.grid = MomentGrid(**grid)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck, default_args=dict(grid=self.grid))
        self.text_encoder = MODELS.build(text_encoder)
        self.head = MODELS.build(head, default_args=dict(grid=self.grid))
        self.data_preprocessor.max_tokens = self.text_encoder.max_tokens

    def forward(self, inputs: Tensor, sentences: SentenceBatch,
                data_samples: list[GroundingDataSample] | None = None, mode: str = 'tensor'):
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

    def encode_moments(self, inputs: Tensor, data_samples=None) -> dict[str, Tensor]:
        """Embed all moments of the videos: (B, R, D) -> ``iou`` and ``contrastive`` (B, P, J)."""
        if inputs.shape[-1] != self.backbone.in_channels:
            videos = ', '.join(s.video_id for s in data_samples or []) or 'of this batch'
            raise ValueError(
                f'the features of video {videos} have size {inputs.shape[-1]}, but '
                f'model.backbone.in_channels is {self.backbone.in_channels}: set in_channels to '
                'the features\' size, or give the feature files this config was written for')
        clips = self.backbone(inputs)  # (B, H, N)
        return self.neck(clips)
