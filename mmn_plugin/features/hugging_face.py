"""Features of vision models from Hugging Face."""

from functools import cached_property

import numpy as np
from torch import Tensor, nn

from mmn_plugin.errors import InputError
from mmn_plugin.hub import from_hub, load_weights

from .extractor import EXTRACTORS, SlidingWindowExtractor

OUTPUTS = ('pooler_output', 'last_hidden_state')


@EXTRACTORS.register_module()
class HuggingFaceFeatureExtractor(SlidingWindowExtractor):
    """Describes frames with a model of vision alone of `transformers`, such as DINOv2 or ViT.

    Frames are prepared by the model's own image processor. A row is the mean over the frames of its
    stride. torchvision is not needed, and not used where it is there, since its scaling differs.
    Models with a text side, such as CLIP and SigLIP, are `DualTower`'s.

    Args:
        model (str): Folder, or name on the Hub, as `AutoModel` knows it.
        fps (float): Frames per second that are looked at. Defaults to 2.
        stride (int): Frames per row. Defaults to 1.
        output (str, optional): Which output is taken: ``'pooler_output'``, or
            ``'last_hidden_state'``, whose tokens are averaged. Defaults to None: the first of these
            that the model has.
        batch_size (int): Rows computed together. Defaults to 32.
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): ``'bf16'`` or ``'fp16'``. Defaults to None: float32.
        revision (str, optional): Branch, tag or commit on the Hub. Defaults to None: the main one.
        root (str, optional): Folder with models (see `find_model`). Defaults to None.

    Raises:
        OSError: At the first use, if there is no such model.
        ValueError: If the model does not have that output, has a text side, or lacks weights.
    """

    def __init__(
        self,
        model: str,
        fps: float = 2.0,
        stride: int = 1,
        output: str | None = None,
        batch_size: int = 32,
        device: str | None = None,
        amp: str | None = None,
        revision: str | None = None,
        root: str | None = None,
    ) -> None:
        super().__init__(fps, stride, stride, 1, batch_size, device, amp)
        if output not in (None, *OUTPUTS):
            raise InputError(f'output={output!r}; it must be one of {list(OUTPUTS)}')
        self.name, self.revision, self.root = str(model), revision, root
        self.output = output

    def describe_settings(self) -> dict:
        """Kind of model, its output, and the preparation of the frames."""
        kinds = ('do_', 'image_', 'size', 'crop', 'resample', 'rescale')
        kept = {
            key: value
            for key, value in sorted(self.processor.to_dict().items())
            if key.startswith(kinds) and key != 'image_processor_type' and value is not None
        }
        architecture = type(self.model).__name__  # which decides on the output
        return dict(architecture=architecture, output=self.output, processor=kept)

    @cached_property
    def processor(self):
        """The model's image processor."""
        from transformers import AutoImageProcessor

        # Not torchvision's, wherever this runs: equal frames shall give equal features.
        options = dict(revision=self.revision, use_fast=False)
        return from_hub(AutoImageProcessor.from_pretrained, self.name, self.root, **options)

    def build_model(self) -> nn.Module:
        """Load the model."""
        from transformers import AutoConfig

        source = self.name, self.root
        config = from_hub(AutoConfig.from_pretrained, *source, revision=self.revision)
        if hasattr(config, 'text_config'):
            raise InputError(
                f"{self.name} ({config.model_type}) has a text side: take it as type='DualTower'"
            )
        lacking: list[str] = []
        model = load_weights(
            *source,
            self.revision,
            lambda weight: 'pooler.' in weight and not lacking.append(weight),
        )
        if lacking and self.output is None:
            self.output = 'last_hidden_state'  # many are published without a pooler
        if lacking and self.output == 'pooler_output':
            raise InputError(
                f'{self.name} lacks weights, which would be random: {", ".join(lacking[:5])}'
            )
        if lacking:
            model.pooler = None  # random weights would be another digest each time
        return model

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Scale, crop and normalize a frame: (3, H, W) float32."""
        return self.processor(images=[frame], return_tensors='np')['pixel_values'][0]

    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of frames (B, T, 3, H, W): means over T."""
        found = self.model(pixel_values=clips.flatten(0, 1))
        there = [name for name in OUTPUTS if found.get(name) is not None]
        self.output = self.output or next(iter(there), None)
        if self.output not in there:
            raise InputError(f'{self.name} has no output {self.output!r}; it has {there}')
        features = found[self.output]  # (B * T, D), or tokens (B * T, L, D)
        features = features.mean(1) if features.ndim == 3 else features
        return features.unflatten(0, clips.shape[:2]).mean(1)
