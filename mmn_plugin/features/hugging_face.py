"""Features of image towers from Hugging Face."""

import threading
from contextlib import contextmanager
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from mmn_plugin.errors import InputError

from .extractor import EXTRACTORS, SlidingWindowExtractor

# Two towers in one checkpoint: the vision tower alone, and what it gives.
TOWERS = dict(
    clip=('CLIPVisionModelWithProjection', 'image_embeds'),
    siglip=('SiglipVisionModel', 'pooler_output'),
)
OUTPUTS = ('image_embeds', 'pooler_output', 'last_hidden_state')
_QUIET_LOCK = threading.Lock()


@EXTRACTORS.register_module()
class HuggingFaceFeatureExtractor(SlidingWindowExtractor):
    """Describes frames with a vision model of `transformers`, such as CLIP's or SigLIP's.

    Frames are prepared by the model's own image processor. A row is the mean over the frames of its
    stride. torchvision is not needed, and not used where it is there, since its scaling differs.

    Args:
        model (str): Folder, or name on the Hub. Of CLIP and SigLIP the vision tower is loaded; any
            other model as `AutoModel` knows it.
        fps (float): Frames per second that are looked at. Defaults to 2.
        stride (int): Frames per row. Defaults to 1.
        output (str, optional): Which output is taken: ``'image_embeds'`` (in the space shared with
            the text), ``'pooler_output'``, or ``'last_hidden_state'``, whose tokens are averaged.
            Defaults to None: the first of these that the model has.
        batch_size (int): Rows computed together. Defaults to 32.
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): ``'bf16'`` or ``'fp16'``. Defaults to None: float32.

    Raises:
        OSError: If there is no such model.
        ValueError: If the model does not have that output, or its files lack weights.
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
    ) -> None:
        super().__init__(fps, stride, stride, 1, batch_size, device, amp)
        if output not in (None, *OUTPUTS):
            raise InputError(f'output={output!r}; it must be one of {list(OUTPUTS)}')
        self.name = str(model)
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
        from transformers.utils import logging

        # Not torchvision's, wherever this runs: equal frames shall give equal features.
        with _quiet(logging):  # it advises to install torchvision
            return AutoImageProcessor.from_pretrained(self.name, use_fast=False)

    def build_model(self) -> nn.Module:
        """Load the model, or the vision tower of one with two."""
        import transformers

        config = transformers.AutoConfig.from_pretrained(self.name)
        tower, output = TOWERS.get(config.model_type, ('AutoModel', None))
        self.output = self.output or output
        if output is not None:
            # the size of the shared space may stand with the whole model alone
            size = getattr(config, 'projection_dim', None)
            config = config.vision_config
            config.projection_dim = size or getattr(config, 'projection_dim', None)
        with _quiet(transformers.utils.logging):  # it lists the text tower's weights as left over
            model, info = getattr(transformers, tower).from_pretrained(
                self.name, config=config, output_loading_info=True
            )
        missing = sorted(map(str, info['missing_keys']))
        if missing and all('pooler.' in name for name in missing) and not self.output:
            self.output = 'last_hidden_state'  # many are published without a pooler
        if self.output == 'last_hidden_state':
            missing = [name for name in missing if 'pooler.' not in name]
        if missing:
            raise InputError(
                f'{self.name} lacks weights of {tower}, which would be random: '
                f'{", ".join(missing[:5])}'
            )
        return model

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Scale, crop and normalize a frame: (3, H, W) float32."""
        return self.processor(images=[frame], return_tensors='np')['pixel_values'][0]

    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of frames (B, T, 3, H, W): means over T."""
        model = self.model
        # of other models with two towers only the image's is run
        found = getattr(model, 'get_image_features', model)(pixel_values=clips.flatten(0, 1))
        if isinstance(found, Tensor):
            found = dict(image_embeds=found)
        there = [name for name in OUTPUTS if found.get(name) is not None]
        self.output = self.output or next(iter(there), None)
        if self.output not in there:
            raise InputError(f'{self.name} has no output {self.output!r}; it has {there}')
        features = found[self.output]  # (B * T, D), or tokens (B * T, L, D)
        features = features.mean(1) if features.ndim == 3 else features
        return features.unflatten(0, clips.shape[:2]).mean(1)


@contextmanager
def _quiet(logging):
    """Hold back what transformers has to say but errors, and its bars: there is one bar here.

    Both settings belong to the process, so that threads take turns.
    """
    with _QUIET_LOCK:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
