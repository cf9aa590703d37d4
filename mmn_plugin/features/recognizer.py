"""Features of MMAction2's recognizers."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from mmaction.registry import MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmn_plugin.config import require_checkpoint, require_checkpoint_content
from mmn_plugin.errors import InputError, MissingFileError, OperationError

from .extractor import EXTRACTORS, SlidingWindowExtractor

FRAME_STEPS = ('Resize', 'CenterCrop')
CROPS = ('ThreeCrop', 'TenCrop')  # several views, of which the middle one is taken


class RecognizerConfig:
    """Model, sampling and preparation of frames of a recognizer.

    Args:
        config (str | dict): A path, ``mmaction::`` and a path below MMAction2's ``configs``, or the
            config itself.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no model.
    """

    def __init__(self, config: str | Path | dict) -> None:
        self.name = 'the recognizer'
        if isinstance(config, str | Path):
            path = _find(str(config))
            self.name = path.stem
            config = Config.fromfile(path)
        self._config = config
        if 'model' not in config or 'backbone' not in config['model']:
            raise InputError(
                f'{self.name}: the config has no `model` with a `backbone`, so that '
                'it is no recognizer'
            )
        self.model = Config(dict(model=config['model'])).to_dict()['model']

    def sampling(self, clip_len: int | None, frame_interval: int | None) -> tuple[int, int]:
        """Clip length and frame interval, as given or as in the config.

        Raises:
            ValueError: If the config does not tell them: where it takes single frames from
                segments of a whole video.
        """
        if clip_len and frame_interval:
            return clip_len, frame_interval
        step = next((step for step in self._pipeline() if step['type'] == 'SampleFrames'), {})
        if step.get('clip_len', 1) == 1:
            raise InputError(
                f'{self.name} samples no clips: give the extractor clip_len and frame_interval'
            )
        return clip_len or step['clip_len'], frame_interval or step.get('frame_interval', 1)

    def frame_steps(self) -> list[dict]:
        """The transforms that scale and crop a frame."""
        steps = [
            dict(type='CenterCrop', crop_size=step['crop_size'])
            if step['type'] in CROPS
            else dict(step)
            for step in self._pipeline()
            if step['type'] in FRAME_STEPS + CROPS
        ]
        if not steps:
            raise InputError(
                f'{self.name} neither scales nor crops frames in its validation '
                'pipeline: give the extractor a pipeline'
            )
        return steps

    def _pipeline(self) -> list[dict]:
        loaders = (self._config.get(f'{split}_dataloader') or {} for split in ('val', 'test'))
        pipelines = ((loader.get('dataset') or {}).get('pipeline') for loader in loaders)
        return next(filter(None, pipelines), [])


def _find(name: str) -> Path:
    package, separator, rest = name.partition('::')
    path = Path(name)
    if separator:
        if package != 'mmaction':
            raise MissingFileError(f'{name}: only mmaction:: can be named so; give a path')
        import mmaction

        root = Path(mmaction.__file__).parent
        # an installed package, or a checkout of MMAction2
        installed = root / '.mim'
        path = (installed if installed.is_dir() else root.parent) / 'configs' / rest
    if not path.is_file():
        beside = ', '.join(sorted(p.name for p in path.parent.glob('*.py'))[:20]) or 'none'
        raise MissingFileError(f'there is no recognizer config {name} (in {path.parent}: {beside})')
    return path


def pool_features(output, num_clips: int) -> Tensor:
    """Average a layer's output over everything but clips and channels.

    Args:
        output (Tensor | list | tuple): Vectors (B', C), tokens (B', L, C), maps (B', C, H, W) or
            (B', C, T, H, W); or several of these, which are joined along C. B' is a multiple
            of the number of clips where each frame of a clip has a row of its own.
        num_clips (int): B.

    Returns:
        Tensor: (B, C).
    """
    if isinstance(output, list | tuple):
        return torch.cat(
            [pool_features(part, num_clips) for part in output if part is not None], dim=1
        )
    if output.ndim == 3:
        output = output.mean(1)
    elif output.ndim > 3:
        output = output.flatten(2).mean(2)
    return output.unflatten(0, (num_clips, -1)).mean(1)


ACTIVATIONS = {None: lambda x: x, 'relu': torch.relu}
_SCOPE_LOCK = threading.Lock()


@EXTRACTORS.register_module()
class RecognizerFeatureExtractor(SlidingWindowExtractor):
    """Takes the output of a layer of any recognizer, 2D or 3D, of MMAction2.

    Frames are scaled and cropped as the recognizer's own validation pipeline says (of several crops
    the middle one) and normalized by its own data preprocessor.

    The layer's output is averaged over space and time; of several outputs (SlowFast) the
    averages are joined. A 2D recognizer's vectors of the frames of a clip are averaged too.

    Args:
        config (str | dict): Recognizer config: a path, or ``mmaction::`` and its path below
            MMAction2's ``configs``.
        checkpoint (str): File or URL with the weights of the recognizer, or of its backbone alone.
        fps (float): Frames per second that are looked at. Defaults to 30.
        stride (int): Frames from one row to the next. Defaults to 16.
        layer (str): Module by its name in the model. Defaults to ``'backbone'``.
        layer_input (bool): Take what goes into the layer rather than what comes out;
            with ``layer='cls_head.fc_cls'`` that is what the recognizer's own head makes of its
            backbone. Defaults to False.
        activation (str, optional): ``'relu'`` is applied to the features. Defaults to None.
        clip_len (int, optional): Frames of a clip. Defaults to None: as in the validation pipeline.
        frame_interval (int, optional): Likewise.
        pipeline (list, optional): Transforms of frames (`Resize`, `CenterCrop`) in place of the
            validation pipeline's. Defaults to None.
        ignored_weights (Sequence[str]): Regular expressions of weights in the checkpoint that the
            model does not have and need not. Defaults to none.
        batch_size (int): Clips that go through the network together. Defaults to 8.
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): ``'bf16'`` or ``'fp16'``. Defaults to None: float32.

    Raises:
        ValueError: If the checkpoint does not fit, a layer has no such name, or clip length and
            interval are neither given nor in the config.
        FileNotFoundError: If config or checkpoint do not exist.
    """

    def __init__(
        self,
        config: str | dict,
        checkpoint: str,
        fps: float = 30.0,
        stride: int = 16,
        layer: str = 'backbone',
        layer_input: bool = False,
        activation: str | None = None,
        clip_len: int | None = None,
        frame_interval: int | None = None,
        pipeline: list | None = None,
        ignored_weights: tuple[str, ...] = (),
        batch_size: int = 8,
        device: str | None = None,
        amp: str | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise InputError(f'activation={activation!r}; it must be one of {list(ACTIVATIONS)}')
        self.recognizer = RecognizerConfig(config)
        clip_len, frame_interval = self.recognizer.sampling(clip_len, frame_interval)
        super().__init__(fps, stride, clip_len, frame_interval, batch_size, device, amp)
        self.checkpoint = checkpoint
        self.layer = layer
        self.layer_input = layer_input
        self.activation = activation
        self.ignored_weights = tuple(ignored_weights)
        self.steps = self.recognizer.frame_steps() if pipeline is None else list(pipeline)
        with _scope_of_mmaction():
            self._transform = Compose([TRANSFORMS.build(step) for step in self.steps])
        self._seen: list = []

    def describe_settings(self) -> dict:
        """Architecture, layer and preparation of the frames."""
        model = json.dumps(self.recognizer.model, sort_keys=True, default=str)
        return dict(
            recognizer=self.recognizer.name,
            layer=self.layer,
            activation=self.activation,
            layer_input=self.layer_input,
            pipeline=self.steps,
            model=hashlib.sha256(model.encode()).hexdigest()[:16],
        )

    def build_model(self) -> nn.Module:
        """Build the recognizer, without the head if that is not asked, and load its weights."""
        settings = Config(self.recognizer.model)
        if not self.layer.startswith('cls_head'):
            settings.pop('cls_head', None)
        with _scope_of_mmaction():
            model = MODELS.build(settings)
        modules = dict(model.named_modules())
        if self.layer not in modules:
            near = self.layer.rpartition('.')[0]
            there = [name for name in modules if name.rpartition('.')[0] == near and name]
            raise InputError(
                f'{self.recognizer.name} has no layer {self.layer!r}; beside it there '
                f'are {", ".join(there[:12]) or "none"}'
            )
        self._load(model)
        self._watch(modules[self.layer])
        return model

    def _load(self, model: nn.Module) -> None:
        if not self.checkpoint:
            raise InputError(
                f'{self.recognizer.name} needs a checkpoint: features of random '
                'weights would tell nothing'
            )
        path = require_checkpoint(str(self.checkpoint))
        try:
            loaded = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
        except URLError as error:
            raise InputError(
                f'{path} cannot be downloaded ({error.reason}); give a file as checkpoint '
                '(--checkpoint FILE)'
            ) from None
        require_checkpoint_content(loaded, path)
        weights = loaded.get('state_dict', loaded)
        weights = {key.removeprefix('module.'): value for key, value in weights.items()}
        if not any(key.startswith('backbone.') for key in weights):
            weights = {f'backbone.{key}': value for key, value in weights.items()}
        needless = [*self.ignored_weights, r'data_preprocessor\.']
        needless += [] if hasattr(model, 'cls_head') else [r'cls_head\.']
        for key in [key for key in weights if re.match('|'.join(needless), key)]:
            del weights[key]
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = ' '.join(str(error).split())[:400]
            raise InputError(f'{path} does not fit {self.recognizer.name}: {reason}') from None

    def _watch(self, layer: nn.Module) -> None:
        if self.layer_input:
            layer.register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs))
        else:
            layer.register_forward_hook(lambda _, __, output: self._seen.append(output))

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Apply the recognizer's own steps to a frame."""
        results = dict(
            imgs=[frame],
            img_shape=frame.shape[:2],
            original_shape=frame.shape[:2],
            modality='RGB',
            num_clips=1,
            clip_len=1,
        )
        return self._transform(results)['imgs'][0]

    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of clips (B, T, H, W, 3) uint8."""
        model = self.model
        preprocessor = self.recognizer.model.get('data_preprocessor') or {}
        if preprocessor.get('format_shape', 'NCHW') == 'NCHW':  # of frames
            inputs = clips.permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W)
        else:  # 'NCTHW', of clips
            inputs = clips.permute(0, 4, 1, 2, 3)[:, None]  # (B, 1, 3, T, H, W)
        inputs = model.data_preprocessor(dict(inputs=list(inputs), data_samples=None))['inputs']
        stage = self.layer.partition('.')[0].replace('cls_head', 'head')
        self._seen.clear()
        model.extract_feat(inputs, stage=stage)
        if len(self._seen) != 1:
            raise OperationError(
                f'layer {self.layer!r} of {self.recognizer.name} ran '
                f'{len(self._seen)} times; it must run once'
            )
        features = pool_features(self._seen.pop(), len(clips))
        return ACTIVATIONS[self.activation](features)


@contextmanager
def _scope_of_mmaction() -> Iterator[None]:
    """MMAction2's registries inside, and the caller's again afterwards.

    The scope belongs to the process: of two threads inside, each would restore the other's.
    """
    with _SCOPE_LOCK, DefaultScope.overwrite_default_scope('mmaction'):
        yield
