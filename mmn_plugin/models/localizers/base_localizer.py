"""The one forward pass of all methods."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmaction.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.features.feature_file import require_same_extractor
from mmn_plugin.models.heads.base_head import unit_vectors
from mmn_plugin.models.necks.tower_pool import moment_means
from mmn_plugin.models.pieces import embed_in_pieces
from mmn_plugin.models.text_encoders.sentence_encoder import KEPT
from mmn_plugin.structures import GroundingDataSample, SentenceBatch, VideoEmbedding


class BaseLocalizer(BaseModel):
    """Embeds videos and sentences, independently of each other; the head does the rest.

    A method's constructor sets ``grid``, ``backbone``, ``neck``, ``text_encoder`` and ``head``.
    The backbone gives the ``grid.num_clips`` clips of a video, the neck their embeddings by joint
    space, the text encoder those of sentences in its ``spaces``; see `BaseHead` for the head.

    Attributes:
        num_clips_option (str): Name of the option for the number of clips, for messages.
        needs_weights (bool): Whether the model is of use only with a checkpoint. Defaults to True.
        tower (SentenceTower | None): The frozen dual encoder whose features the videos come as; it
            embeds sentences in the features' own space. It is no module: its weights are neither
            trained nor in a checkpoint. Defaults to None.
        tower_fingerprint (dict | None): Fingerprint of the tower that a loaded checkpoint belongs
            to; another one is refused at its first use. Defaults to None: not known.
    """

    num_clips_option: str
    needs_weights = True
    tower = None
    tower_fingerprint: dict | None = None

    def __init__(
        self, data_preprocessor: nn.Module | None = None, init_cfg: dict | list[dict] | None = None
    ):
        super().__init__(data_preprocessor, init_cfg)
        self._meanings: dict[str, Tensor] = {}  # sentence -> (C,), on the CPU

    def build_tower(self, tower: dict | None, head: dict) -> None:
        """Set ``tower`` from its config; the head has to be there.

        Args:
            tower (dict, optional): Config.
            head (dict): Config of the head, for the message.

        Raises:
            ValueError: If the head's scores need a tower, and there is none.
        """
        if tower is None and self.head.tower_spaces:
            raise InputError(
                f'model.head ({head["type"]}) scores by the spaces '
                f'{", ".join(self.head.tower_spaces)} of a tower: set model.tower to the config of '
                'the dual encoder that made the features'
            )
        self.tower = None if tower is None else MODELS.build(tower)

    def _set_device(self, device: torch.device | None) -> None:
        super()._set_device(device)
        if self.tower is not None and device is not None:
            self.tower.device = str(device)

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
    def check_sizes(backbone: dict, neck: dict, text_encoder: dict) -> None:
        """Refuse two sizes of the joint space, or of the features that the backbone appends.

        Args:
            backbone (dict): Config of the clip encoder.
            neck (dict): Config of the neck.
            text_encoder (dict): Config of the sentence encoder.

        Raises:
            ValueError: If ``embed_channels`` of neck and sentence encoder differ, or the neck's
                ``features`` are not ``in_channels`` of a backbone with ``keep_features``, else 0.
        """
        kept = backbone.get('in_channels', 0) if backbone.get('keep_features') else 0
        features = neck.get('features', 0)
        if features != kept:
            raise InputError(
                f'model.neck.features={features}, but model.backbone appends {kept} channels of '
                'features: set model.backbone.keep_features=True and, of a MomentMapNeck, features '
                'to in_channels; or neither'
            )
        sizes = neck.get('embed_channels'), text_encoder.get('embed_channels')
        if None not in sizes and sizes[0] != sizes[1]:
            raise InputError(
                f'model.neck.embed_channels={sizes[0]} and model.text_encoder.'
                f'embed_channels={sizes[1]} must be one size, that of the joint space'
            )

    def forward(
        self,
        inputs: Tensor,
        sentences: SentenceBatch | None,
        data_samples: list[GroundingDataSample] | None = None,
        mode: str = 'tensor',
    ):
        """Embed videos and sentences, then compute losses or predictions.

        Args:
            inputs (Tensor): (B, R, D) pooled features; (T, R, D) of all tubes.
            sentences (SentenceBatch | None): All sentences of the batch; None without a tokenizer.
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
            texts = self.embed_sentences(_texts(data_samples), sentences)  # (S, J) per space
            return self.head.predict(videos, texts, data_samples)
        if mode == 'loss':
            embeddings, texts = embed_in_pieces(self, inputs, sentences, data_samples)
            if self.head.negatives.exclude_similar is not None:
                texts = dict(texts, meaning=self.meanings(_texts(data_samples), sentences))
            return self.head.loss(embeddings, texts, sentences.video, data_samples)
        if mode == 'tensor':
            return self.embed(inputs, sentences, data_samples)
        raise RuntimeError(f"mode is 'loss', 'predict' or 'tensor', not {mode!r}")

    def embed(
        self,
        inputs: Tensor,
        sentences: SentenceBatch | None,
        data_samples: list[GroundingDataSample] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(B, U, J) and (S, J) per space, as neck and text encoder give them; args of `forward`."""
        embeddings = self.neck(self.encode_clips(inputs, data_samples))
        return embeddings, {} if self.text_encoder is None else self.text_encoder(sentences)

    @torch.no_grad()
    def meanings(self, texts: Sequence[str], tokens: SentenceBatch | None) -> Tensor:
        """Unit vectors (S, C), on the CPU, whose cosine says how much alike sentences mean.

        They are the tower's, or else the frozen language model's means over tokens, and are kept
        (of `KEPT` sentences at most), so that the device is waited for once per sentence.

        Args:
            texts (Sequence[str]): S sentences.
            tokens (SentenceBatch | None): The same, tokenised; the tower needs none.

        Raises:
            ValueError: As of `check_meanings`.
        """
        self.check_meanings()
        rows = {text: row for row, text in enumerate(texts) if text not in self._meanings}
        found = {}
        if rows and self.tower is not None:
            vectors = self.tower.encode_sentences([*rows])
        elif rows:
            vectors = self.text_encoder.token_means(tokens.take([*rows.values()]))
        if rows:
            found = dict(zip(rows, F.normalize(vectors, dim=-1).cpu(), strict=True))
        result = torch.stack([found.get(text, self._meanings.get(text)) for text in texts])
        if len(self._meanings) + len(found) <= KEPT:
            self._meanings.update(found)
        return result

    def check_meanings(self) -> None:
        """Refuse ``exclude_similar`` where nothing stays that says what sentences mean.

        Raises:
            ValueError: If it is set, and the model has neither a tower nor a frozen language model.
        """
        similar = self.head.negatives.exclude_similar
        if similar is not None and self.tower is None and not self.text_encoder.frozen:
            # a localizer that takes a tower has set its own
            towers = 'model.tower (a TextTower will do), or ' if 'tower' in vars(self) else ''
            raise InputError(
                f'model.head.negatives.exclude_similar={similar} compares what sentences mean by '
                f'weights that are never trained: set {towers}model.text_encoder.frozen=True'
            )

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
        if self.head.tower_spaces:
            spaces['tower'] = moment_means(inputs, self.grid)  # (B, P, D)
        return self.head.split(spaces, data_samples)

    def embed_sentences(
        self, texts: Sequence[str], tokens: SentenceBatch | None
    ) -> dict[str, Tensor]:
        """Everything that scores need of sentences, (S, J) per space.

        The tower is run where the head scores by it, and else not.

        Args:
            texts (Sequence[str]): S sentences.
            tokens (SentenceBatch | None): The same, tokenised; None without a tokenizer.

        Raises:
            ValueError: If the tower is another one than the checkpoint belongs to.
        """
        spaces = {} if self.text_encoder is None else self.text_encoder(tokens)
        if self.head.tower_spaces:
            self.require_tower()
            spaces.update(dict.fromkeys(self.head.tower_spaces, self.tower.encode_sentences(texts)))
        return spaces

    def require_tower(self) -> None:
        """Refuse another tower than the checkpoint's; compared once.

        Raises:
            ValueError: If they differ, with what differs.
        """
        theirs, self.tower_fingerprint = self.tower_fingerprint, None
        if theirs is not None:
            ours, remedy = [self.tower.fingerprint], 'Give the tower that it was trained with'
            require_same_extractor(
                [theirs], ours, "the checkpoint's tower", ['model.tower'], remedy
            )

    def inspect_sentences(self, sentences: Sequence[str]) -> list[tuple[int, str | None]]:
        """Tokens of each sentence, and what makes it unusable: None where nothing does."""
        inspector = self.data_preprocessor.tokenizer or self.tower
        return inspector.inspect(list(sentences))

    def encode_sentences(self, sentences: Sequence[str]) -> dict[str, Tensor]:
        """Embed sentences, (S, J) per space."""
        return self.embed_sentences(sentences, self.data_preprocessor.batch_sentences([sentences]))

    @torch.inference_mode()
    def sentence_vectors(self, sentences: Sequence[str], batch: int = 256) -> dict[str, Tensor]:
        """Unit vectors (S, J) of sentences per space, on the CPU; ``batch`` at a time."""
        parts = [
            unit_vectors(self.encode_sentences(sentences[first : first + batch]))
            for first in range(0, len(sentences), batch)
        ]
        return {space: torch.cat([part[space] for part in parts]).cpu() for space in parts[0]}

    @torch.no_grad()
    def embed_sample(
        self, inputs: Tensor, data_sample: GroundingDataSample
    ) -> tuple[VideoEmbedding, dict[str, Tensor]]:
        """Embed a video of a dataset and its sentences.

        Args:
            inputs (Tensor): (R, D) pooled features.
            data_sample (GroundingDataSample): The video with s sentences.

        Returns:
            tuple[VideoEmbedding, dict[str, Tensor]]: The video, and (s, J) per space, on the
            model's device.
        """
        batch = self.data_preprocessor(dict(inputs=[inputs], data_samples=[data_sample]))
        (video,) = self.encode_videos(batch['inputs'], batch['data_samples'])
        return video, self.embed_sentences(data_sample.sentences, batch['sentences'])

    @torch.no_grad()
    def score_sample(
        self, inputs: Tensor, data_sample: GroundingDataSample
    ) -> tuple[VideoEmbedding, Tensor]:
        """As `embed_sample`, with the scores (s, U) of the units before ranking, for pictures."""
        video, texts = self.embed_sample(inputs, data_sample)
        return video, self.head.score(video, texts)

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


def _texts(data_samples: list[GroundingDataSample]) -> list[str]:
    """Sentences of all videos of a batch."""
    return [text for sample in data_samples for text in sample.sentences]
