"""The one forward pass of all methods."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModel
from torch import Tensor

from mmn_plugin.errors import InputError
from mmn_plugin.structures import GroundingDataSample, SentenceBatch, VideoEmbedding


class BaseLocalizer(BaseModel):
    """Embeds videos and sentences, independently of each other; the head does the rest.

    A method's constructor sets ``grid``, ``backbone``, ``neck``, ``text_encoder`` and ``head``.
    The backbone gives the ``grid.num_clips`` clips of a video, the neck their embeddings by joint
    space, the text encoder those of sentences in its ``spaces``; see `BaseHead` for the head.

    Attributes:
        num_clips_option (str): Name of the option for the number of clips, for messages.
    """

    num_clips_option: str

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the losses; their values to log stay in ``log_vars``, for the train loop's check.

        Args:
            losses (dict[str, Tensor]): By name.

        Returns:
            tuple[Tensor, dict[str, Tensor]]: The sum to minimize; it and the losses, detached.
        """
        total, values = super().parse_losses(losses)
        self.log_vars = {name: value.detach() for name, value in values.items()}
        return total, self.log_vars

    @staticmethod
    def check_joint_space(neck: dict, text_encoder: dict) -> None:
        """Refuse two sizes of the joint space.

        Args:
            neck (dict): Config of the neck.
            text_encoder (dict): Config of the sentence encoder.

        Raises:
            ValueError: If their ``embed_channels`` differ.
        """
        sizes = neck.get('embed_channels'), text_encoder.get('embed_channels')
        if None not in sizes and sizes[0] != sizes[1]:
            raise InputError(
                f'model.neck.embed_channels={sizes[0]} and model.text_encoder.'
                f'embed_channels={sizes[1]} must be one size, that of the joint space'
            )

    def forward(
        self,
        inputs: Tensor,
        sentences: SentenceBatch,
        data_samples: list[GroundingDataSample] | None = None,
        mode: str = 'tensor',
    ):
        """Embed videos and sentences, then compute losses or predictions.

        Args:
            inputs (Tensor): (B, R, D) pooled features; (T, R, D) of all tubes.
            sentences (SentenceBatch): All sentences of the batch.
            data_samples (list[GroundingDataSample], optional): Needed but for ``'tensor'``.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'`` (the embeddings themselves).

        Returns:
            dict[str, Tensor] | list[GroundingDataSample] | tuple: Losses; samples with
            ``pred_instances``; or (B, U, J) and (S, J) per space, as neck and text encoder give
            them.

        Raises:
            ValueError: If the features' size is not the backbone's ``in_channels``.
            RuntimeError: If the mode is unknown.
        """
        if mode == 'predict':
            videos = self.encode_videos(inputs, data_samples)
            return self.head.predict(videos, self.text_encoder(sentences), data_samples)
        embeddings = self.neck(self.encode_clips(inputs, data_samples))  # (B, U, J) per space
        texts = self.text_encoder(sentences)  # (S, J) per space
        if mode == 'loss':
            return self.head.loss(embeddings, texts, sentences.video, data_samples)
        if mode == 'tensor':
            return embeddings, texts
        raise RuntimeError(f"mode is 'loss', 'predict' or 'tensor', not {mode!r}")

    def encode_videos(
        self, inputs: Tensor, data_samples: list[GroundingDataSample]
    ) -> list[VideoEmbedding]:
        """Everything that scores need of videos.

        Args:
            inputs (Tensor): (B, R, D) pooled features; (T, R, D) of all tubes.
            data_samples (list[GroundingDataSample]): B videos; their ids and durations, or tubes.

        Raises:
            ValueError: If the features' size or number does not fit the model.
        """
        embeddings = self.neck(self.encode_clips(inputs, data_samples))
        spaces = {space: embeddings[space] for space in self.text_encoder.spaces}
        return self.head.split(spaces, data_samples)

    def encode_sentences(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Embed sentences, (S, J) per space."""
        return self.text_encoder(self.data_preprocessor.batch_sentences([sentences]))

    @torch.no_grad()
    def score_sample(
        self, inputs: Tensor, data_sample: GroundingDataSample
    ) -> tuple[VideoEmbedding, Tensor]:
        """A video of a dataset with the scores of its units before ranking, for pictures.

        Args:
            inputs (Tensor): (R, D) pooled features.
            data_sample (GroundingDataSample): The video with s sentences.

        Returns:
            tuple[VideoEmbedding, Tensor]: The video, and (s, U), on the model's device.
        """
        batch = self.data_preprocessor(dict(inputs=[inputs], data_samples=[data_sample]))
        (video,) = self.encode_videos(batch['inputs'], batch['data_samples'])
        return video, self.head.score(video, self.text_encoder(batch['sentences']))

    def encode_clips(self, inputs: Tensor, data_samples=None) -> Tensor:
        """Embed the clips before the neck: (B, R, D) -> (B, H, N).

        Raises:
            ValueError: If the features' size or number does not fit the model.
        """
        videos = ', '.join(s.video_id for s in data_samples or []) or 'of this batch'
        if inputs.shape[-1] != self.backbone.in_channels:
            raise InputError(
                f'the features of video {videos} have size {inputs.shape[-1]}, but '
                f'model.backbone.in_channels is {self.backbone.in_channels}: set in_channels to '
                "the features' size, or give the feature files this config was written for"
            )
        clips = self.backbone(inputs)  # (B, H, N)
        if clips.shape[-1] != self.grid.num_clips:
            raise InputError(
                f'the {inputs.shape[1]} feature rows of video {videos} give {clips.shape[-1]} '
                f'clips, but {self.num_clips_option} is {self.grid.num_clips}: num_segments of '
                'PoolClipFeatures (in every pipeline), model.backbone.kernel_size and stride, '
                'and num_clips belong together'
            )
        return clips
