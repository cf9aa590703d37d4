"""Dual encoders of Hugging Face: sentences, and frames or windows of frames, in one space."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature

import numpy as np
import torch
from mmaction.registry import MODELS
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.hub import load_weights

from .extractor import EXTRACTORS, SlidingWindowExtractor
from .frame_preparation import FramePreparation
from .text_tower import SentenceTower

TEXT, VIDEO, IMAGE = 'get_text_features', 'get_video_features', 'get_image_features'


@dataclass(frozen=True)
class Family:
    """What a kind of model does in its own way.

    Attributes:
        padding (str): How its training padded texts: to the ``'longest'``, or to ``'max_length'``.
        lowercase (bool): Whether its training had texts in lower case, which not all of its
            published tokenizers see to.
        methods (dict[str, Callable]): In place of the model's own methods, with the model first.
        logit_scale (str): Name of its logit scale.
        log_scale (bool): Whether that is the logarithm.
    """

    padding: str = 'longest'
    lowercase: bool = False
    methods: dict[str, Callable] | None = None
    logit_scale: str = 'logit_scale'
    log_scale: bool = True


def _pe_text(model: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """As `PeVideoModel.forward`, whose ``get_text_features`` no one can call in transformers 5."""
    found = model.text_model(
        input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
    )
    return model.text_video_head(found.hidden_states[-1][:, 0])


def _pe_video(model: nn.Module, pixel_values_videos: Tensor) -> Tensor:
    return model.video_head(model.video_encoder(pixel_values_videos).pooler_output)


FAMILIES = dict(
    siglip=Family(padding='max_length', lowercase=True),  # SigLIP 2 of a fixed resolution as well
    videoprism=Family(padding='max_length'),
    pe_video=Family(
        methods={TEXT: _pe_text, VIDEO: _pe_video},
        logit_scale='text_video_logit_scale',
        log_scale=False,
    ),
)
REFUSED = dict(
    siglip2='is a NaFlex variant of SigLIP 2, which takes patches and masks instead of frames of '
    'one size; take one of a fixed resolution, such as google/siglip2-base-patch16-224'
)


@EXTRACTORS.register_module()
@MODELS.register_module()
class DualTower(SentenceTower, SlidingWindowExtractor):
    """A frozen dual encoder of `transformers`: an extractor of features, and their sentences' side.

    A frame tower (CLIP, SigLIP) has ``get_image_features``; a row is the mean over the frames of
    its stride. A video tower (VideoPrism, X-CLIP) has ``get_video_features``; a row is its output
    for a window of frames around the stride. In a video that is shorter than the window, and at a
    video's ends, the first and the last frame stand still (see `sliding_windows`). Rows are what
    the model gives, not normalized.

    Frames are prepared on the device as the model's own processor says, by `FramePreparation`;
    neither PIL nor torchvision does it.

    Args:
        model (str): As of `SentenceTower`.
        revision (str, optional): Likewise.
        root (str, optional): Likewise.
        templates (Sequence[str]): Likewise.
        rewrite (Callable | str, optional): Likewise.
        sentence_batch (int): Likewise.
        fps (float): Frames per second that are looked at. Defaults to 2.
        stride (int): Frames from one row to the next. Defaults to 1.
        clip_len (int, optional): Frames of a window. Defaults to None: as many as a video tower
            takes, and the stride of a frame tower.
        frame_interval (int): Frames from one frame of a window to the next. Defaults to 1.
        batch_size (int): Rows that are computed together. Defaults to 8.
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): Mixed precision of frames, ``'bf16'`` or ``'fp16'``; sentences are
            embedded in float32. Defaults to None: float32.

    Raises:
        ValueError: If a setting is not positive; at the first use, if the model is no dual encoder,
            takes another number of frames or is not supported, or its files lack weights.
        OSError: At the first use, if there is no such model.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        root: str | None = None,
        templates: Sequence[str] = ('{}',),
        rewrite: Callable[[str], str] | str | None = None,
        sentence_batch: int = 64,
        fps: float = 2.0,
        stride: int = 1,
        clip_len: int | None = None,
        frame_interval: int = 1,
        batch_size: int = 8,
        device: str | None = None,
        amp: str | None = None,
    ) -> None:
        super().__init__(
            model,
            revision=revision,
            root=root,
            templates=templates,
            rewrite=rewrite,
            sentence_batch=sentence_batch,
            fps=fps,
            stride=stride,
            clip_len=clip_len,
            frame_interval=frame_interval,
            batch_size=batch_size,
            device=device,
            amp=amp,
        )

    @cached_property
    def clip_len(self) -> int:
        """Frames of a window."""
        if not self.sees_windows:
            return self.stride
        if self._frames_of_model is None:
            raise InputError(
                f'{self.source} takes windows of any number of frames: give the tower clip_len'
            )
        return self._frames_of_model

    @property
    def _frames_of_model(self) -> int | None:
        """Frames that a video tower takes; None where their number is free."""
        vision = getattr(self.config, 'vision_config', None)
        return getattr(vision, 'num_frames', None)

    @property
    def fingerprint(self) -> dict:
        """As of `FeatureExtractor`, with the model's name."""
        return dict(super().fingerprint, config=self.published)

    @property
    def family(self) -> Family:
        """What the model does in its own way."""
        return FAMILIES.get(self.config.model_type, Family())

    @cached_property
    def sees_windows(self) -> bool:
        """Whether the model takes windows of frames, rather than frames one by one.

        Raises:
            ValueError: If it is no dual encoder of sentences and frames, or is not supported.
        """
        from transformers import AutoModel

        kind = self.config.model_type
        if kind in REFUSED:
            raise InputError(f'{self.source} {REFUSED[kind]}')
        model = AutoModel._model_mapping.get(type(self.config), None)
        methods = self.family.methods or {}
        there = [name for name in (TEXT, VIDEO, IMAGE) if name in methods or hasattr(model, name)]
        if TEXT not in there:
            raise InputError(
                f'{self.source} ({kind}) has no text side beside frames or videos: give a dual '
                'encoder, such as CLIP or SigLIP (HuggingFaceFeatureExtractor takes models of '
                'vision alone, and TextTower those of sentences alone)'
            )
        if len(there) == 1:
            raise InputError(f'{self.source} ({kind}) sees neither frames nor videos')
        return VIDEO in there

    def _ask(self, method: str, first: Tensor, **others: Tensor) -> Tensor:
        """What the model's method gives, (n, D)."""
        own = (self.family.methods or {}).get(method)
        ask = partial(own, self.model) if own else getattr(self.model, method)
        known = signature(ask).parameters
        found = ask(first, **{key: value for key, value in others.items() if key in known})
        found = found if isinstance(found, Tensor) else found.pooler_output
        return found.flatten(0, -2)  # VideoPrism has a pooled token

    @property
    def text_config(self):
        """Configuration of the text side."""
        return getattr(self.config, 'text_config', self.config)

    @property
    def padding(self) -> str:
        """How texts are padded: as in the training."""
        return self.family.padding

    def clean(self, text: str) -> str:
        """In lower case where the training had it so."""
        return text.lower() if self.family.lowercase else text

    def embed(self, tokens: dict[str, Tensor]) -> Tensor:
        """What the text side gives for tokenized texts, (n, D)."""
        return self._ask(TEXT, tokens.pop('input_ids'), **tokens)

    @property
    def logit_scale(self) -> float | None:
        """What cosines are multiplied with in the training's loss; None where there is nothing."""
        scale = getattr(self.model, self.family.logit_scale, None)
        if scale is None:
            return None
        return float(scale.exp() if self.family.log_scale else scale)

    @property
    def logit_bias(self) -> float | None:
        """What is added then, before the sigmoid; None where the model has none."""
        name = self.family.logit_scale.replace('scale', 'bias')
        bias = getattr(self.model, name, None)
        return None if bias is None else float(bias)

    @cached_property
    def preparation(self) -> FramePreparation:
        """How frames are scaled, cropped and normalized."""
        from transformers import AutoImageProcessor

        settings = None
        if self.sees_windows:  # of the video processor, whose class needs torchvision
            whole = self._json('processor_config.json') or {}
            settings = whole.get('video_processor') or self._json('video_preprocessor_config.json')
        if settings is None:
            # not torchvision's, wherever this runs: it would only be asked for its numbers
            settings = self._from_hub(AutoImageProcessor.from_pretrained, backend='pil').to_dict()
        return FramePreparation.of_processor(settings, self.name)

    def build_model(self) -> nn.Module:
        """The model with both sides."""
        takes = self._frames_of_model if self.sees_windows else None
        if takes not in (None, self.clip_len):
            raise InputError(
                f'{self.source} takes windows of {takes} frames; the tower has '
                f'clip_len={self.clip_len}'
            )
        return load_weights(self.name, self.root, self.revision)

    def describe_settings(self) -> dict:
        """Kind of model, and the preparation of the frames."""
        return dict(architecture=self.config.model_type, preparation=self.preparation.settings)

    def prepared(self, frames: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Frames (3, h, w) uint8 on the device; of full ones few are held at a time."""
        return self.preparation.stream(frames, self.device)

    def stack(self, clips: list[list[Tensor]]) -> Tensor:
        """Windows (n, clip_len, 3, h, w) on the device."""
        return torch.stack([torch.stack(clip) for clip in clips])

    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of windows (B, clip_len, 3, h, w) uint8."""
        pixels = self.preparation.normalize(clips)
        if self.sees_windows:
            return self._ask(VIDEO, pixels)
        return self._ask(IMAGE, pixels.flatten(0, 1)).unflatten(0, clips.shape[:2]).mean(1)
