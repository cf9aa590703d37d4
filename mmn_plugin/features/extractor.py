"""Extractors: from frames to features, the base class and how a config names one."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from functools import cached_property
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from torch import Tensor

from mmn_plugin.config import apply_tf32, load_config, require_device
from mmn_plugin.errors import InputError, OperationError
from mmn_plugin.files import config_root
from mmn_plugin.hub import with_model_root

from .lazy_network import LazyNetwork, digest
from .pipeline import END, Ahead, InTurn, Timing, described
from .video import RGBVideoReader, VideoReader, sliding_windows


class FeatureExtractor(ABC):
    """Turns a video into clip features, one row per ``stride`` frames.

    A video of any length goes through in constant memory: frames come one after another from
    `reader`, `batches` prepares some of them at a time, `describe_batch` makes rows of these. So
    decoding and preparing can run ahead while a batch is described.

    Attributes:
        fps (float): Frames per second that are looked at.
        stride (int): Frames from one row to the next.
        workers (int): Workers that it is best run with; 0: none but the caller.
        threads (bool): Whether workers are threads that prepare batches for the one extractor,
            which is on an accelerator, rather than processes with an extractor each. With threads,
            `reader`, `batches` and `describe_batch` are called by several at once. Default: False.
    """

    fps: float
    stride: int
    workers = 2
    threads = False

    @property
    @abstractmethod
    def identity(self) -> str:
        """All that decides what the features are, but for ``stride`` and ``fps``, as one string."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Feature size D."""

    @abstractmethod
    def reader(self, video: str | Path) -> VideoReader:
        """Frames of a file, in the form that `batches` takes."""

    @abstractmethod
    def batches(self, frames: Iterable[np.ndarray]) -> Generator[Any, None, None]:
        """Prepare frames for `describe_batch`, as many at a time as it shall take together."""

    @abstractmethod
    def describe_batch(self, batch: Any) -> np.ndarray:
        """Features (n, D) float32 of a batch, one row per started ``stride`` frames."""

    def start_batch(self, batch: Any) -> Callable[[], np.ndarray]:
        """Begin to describe a batch; what is returned waits for what `describe_batch` gives.

        Here all is done at once. On an accelerator the host goes on meanwhile.
        """
        rows = self.describe_batch(batch)
        return lambda: rows

    def blocks(self, frames: Iterable[np.ndarray], ahead: bool = False) -> Iterator[np.ndarray]:
        """Describe a stream of frames, as `reader` gives them: parts (n, D) float32.

        With ``ahead`` a thread prepares the next batches meanwhile; the features do not depend on
        it.
        """
        sources = [frames]
        prepared = Ahead(sources, self.batches, 1) if ahead else InTurn(sources, self.batches)
        with closing(described(self.start_batch, prepared, Timing())) as blocks:
            for _, block in blocks:
                if isinstance(block, BaseException):
                    raise block
                if block is not END:
                    yield block

    @property
    def settings(self) -> dict:
        """What identifies this extractor: equal settings, equal features."""
        return dict(extractor=self.identity, stride=self.stride, fps=self.fps)

    @property
    def fingerprint(self) -> dict:
        """The settings and the feature size: what a checkpoint keeps (see `fingerprint`)."""
        return dict(self.settings, feature_size=self.num_features)

    def __call__(self, video: str | Path | Iterable[np.ndarray]) -> np.ndarray:
        """Describe a video.

        Args:
            video (str | Path | Iterable[np.ndarray]): A file, or frames as `reader` gives them.
                They are never all in memory at once; a thread reads them ahead.

        Returns:
            np.ndarray: (T, D) float32, one row per ``stride`` frames; the last may stand for fewer.

        Raises:
            VideoReadError: If the file cannot be decoded.
        """
        frames = self.reader(video) if isinstance(video, str | Path) else video
        return np.concatenate(list(self.blocks(frames, ahead=True)))


# See FeatureExtractor: from a video file to (T, D) features, one row per equal step of time.
EXTRACTORS = Registry('feature extractor', scope='mmaction')
# A callable from frames (F, 3, H, W) YUV to tubes.
TRACKERS = Registry('tracker', scope='mmaction')
# A callable from frames and tubes to {stream: [(rows, D) per tube]}, with ``size``.
TUBE_EXTRACTORS = Registry('tube feature extractor', scope='mmaction')


DECODERS = 4  # threads that feed an accelerator, unless another number is asked for


class SlidingWindowExtractor(LazyNetwork, FeatureExtractor):
    """Runs a network over clips that slide along a video.

    Row k stands for frames ``k * stride ... (k + 1) * stride - 1``; its clip has the same middle
    (see `sliding_windows`). Batches for a GPU are prepared in pinned memory and copied while the
    host goes on. Threads that use one extractor take turns at the network (see `LazyNetwork`).

    Args:
        fps (float): Frames per second that are looked at, whatever the video's own rate.
        stride (int): Frames from one row to the next.
        clip_len (int | None): Frames of a clip; None where the class finds it out itself.
        frame_interval (int): Frames from one frame of a clip to the next.
        batch_size (int): Clips that go through the network together.
        device (str, optional): Defaults to None: the accelerator if there is one.
        amp (str, optional): Mixed precision of the network, ``'bf16'`` or ``'fp16'`` (not on the
            CPU); features of another precision count as those of another extractor. Defaults to
            None: float32.

    Raises:
        ValueError: If a number is not positive, or the device has no such precision.
    """

    def __init__(
        self,
        fps: float,
        stride: int,
        clip_len: int | None,
        frame_interval: int,
        batch_size: int,
        device: str | None,
        amp: str | None = None,
    ) -> None:
        given = dict(fps=fps, stride=stride, frame_interval=frame_interval, batch_size=batch_size)
        if clip_len is not None:
            given['clip_len'] = self.clip_len = clip_len
        for name, value in given.items():
            if not value > 0 or (name != 'fps' and value != int(value)):
                kind = 'number' if name == 'fps' else 'whole number'
                raise InputError(
                    f'{type(self).__name__}: {name}={value}; it must be a {kind} above 0'
                )
        self.fps = float(fps)
        self.stride = stride
        self.frame_interval = frame_interval
        self.batch_size = batch_size
        super().__init__(device=device, amp=amp)
        self._copies: torch.cuda.Stream | None = None

    @LazyNetwork.device.setter
    def device(self, device: str | torch.device) -> None:
        LazyNetwork.device.fset(self, device)
        self.threads = self._device_type != 'cpu'
        self.workers = DECODERS if self.threads else 0  # on the CPU PyTorch uses the cores itself
        self._copies = None

    def __getstate__(self) -> dict:
        return dict(super().__getstate__(), _copies=None)

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Scale and crop a frame (H, W, 3) uint8 RGB to an array that is as large for all frames.

        Several threads may do so at once. For classes that have no `prepared` of their own.
        """
        raise NotImplementedError

    def prepared(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray | Tensor]:
        """Frames as `prepare` makes them of a stream of frames (H, W, 3) uint8 RGB.

        A class whose own gives something else than writable arrays has a `stack` of its own too.
        """
        for frame in frames:
            made = np.asarray(self.prepare(frame))  # a view would keep the whole frame
            yield made.copy() if made.base is not None or not made.flags.writeable else made

    @abstractmethod
    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of clips ``(B, clip_len, *frame)``, on the device; one call at a time."""

    @abstractmethod
    def describe_settings(self) -> dict:
        """What decides the features beside the weights."""

    @cached_property
    def identity(self) -> str:
        """Settings and a digest of the weights, as JSON."""
        with self._lock:
            content = dict(
                type=type(self).__name__,
                **self.describe_settings(),
                clip_len=self.clip_len,
                frame_interval=self.frame_interval,
                weights=digest(self.model),
            )
        if self.amp:  # features made before there was a choice keep their identity
            content['amp'] = self.amp
        return json.dumps(content, sort_keys=True)

    @cached_property
    def num_features(self) -> int:
        """Feature size D, found out with one gray clip."""
        return next(self.blocks([np.full((64, 64, 3), 128, np.uint8)])).shape[1]

    def reader(self, video: str | Path) -> RGBVideoReader:
        """Frames of a file in color and full size."""
        return RGBVideoReader(video, self.fps)

    def batches(self, frames: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Prepare the clips of a stream of frames (H, W, 3) uint8 RGB.

        A frame is prepared once, in however many clips it is.

        Yields:
            Tensor: ``(n, clip_len, *frame)``, n at most ``batch_size``; in pinned memory for a GPU.
        """
        frames = self.prepared(frames)
        clips = sliding_windows(frames, self.stride, self.clip_len, self.frame_interval, list)
        while batch := list(islice(clips, self.batch_size)):
            stacked = self.stack(batch)
            batch.clear()  # no frame is kept twice
            yield stacked

    def stack(self, clips: list[list]) -> Tensor:
        """Clips of prepared frames as one tensor, ``(n, clip_len, *frame)``."""
        frame = torch.from_numpy(clips[0][0])
        with torch.cuda.device(self.device) if self._on_gpu else nullcontext():
            stacked = torch.empty(
                (len(clips), self.clip_len, *frame.shape),
                pin_memory=self._on_gpu,
                dtype=frame.dtype,
            )
        for place, clip in zip(stacked.numpy(), clips, strict=True):
            np.stack(clip, out=place)
        return stacked

    def describe_batch(self, batch: Tensor) -> np.ndarray:
        """Run the network on a batch ``(n, clip_len, *frame)``: features (n, D) float32.

        Raises:
            RuntimeError: If the network gives something else than one vector per clip.
        """
        return self.start_batch(batch)()

    def start_batch(self, batch: Tensor) -> Callable[[], np.ndarray]:
        """Order the features of a batch from a GPU, which has its orders on return; see the base.

        Threads take turns until then.
        """
        cast = torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None)
        with self._lock:
            with torch.inference_mode(), cast:
                features = self.describe(self._moved(batch))
            if features.ndim != 2 or len(features) != len(batch):
                raise OperationError(
                    f'{type(self).__name__}: features of {len(batch)} clips have '
                    f'the shape {tuple(features.shape)}, not ({len(batch)}, D)'
                )
            features = features.float().to('cpu', non_blocking=self._on_gpu)  # (n, D)
            if not self._on_gpu:
                return features.numpy
            copied = torch.cuda.Event(blocking=True)  # leaves the core to those who decode
            copied.record(torch.cuda.current_stream(self.device))

        def rows() -> np.ndarray:
            copied.synchronize()
            return features.numpy()

        return rows

    def _moved(self, batch: Tensor) -> Tensor:
        """The batch on the device; to a GPU it is copied while that computes the one before."""
        if not self._on_gpu:
            return batch.to(self.device)
        if self._copies is None:
            self._copies = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copies):
            moved = batch.to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._copies)
        moved.record_stream(computing)  # its memory is not given to another before it was used
        return moved


def extractor_config(
    name: str,
    options: dict | None = None,
    checkpoint: str | None = None,
    fps: float | None = None,
    stride: int | None = None,
    amp: str | None = None,
    root: str | None = None,
) -> dict:
    """Read the ``extractor`` of a config, and apply its ``env_cfg.allow_tf32`` to this process.

    Args:
        name (str): Path of a config, or the name of one of mmn_plugin; ``extractors/`` and ``.py``
            may be left out.
        options (dict, optional): Merged over the config. Defaults to None.
        checkpoint (str, optional): Weights in place of the config's. Defaults to None.
        fps (float, optional): Likewise.
        stride (int, optional): Likewise.
        amp (str, optional): Likewise: ``'bf16'``, ``'fp16'``, or ``'auto'``, which is fp16 on
            accelerators and bf16 on the CPU.
        root (str, optional): Folder with models of Hugging Face (see `find_model`). Defaults to
            None.

    Returns:
        dict: What `EXTRACTORS` builds.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no ``extractor``, or the extractor lacks what is to be replaced.
    """
    config = with_model_root(load_config(_full_name(name), options), root)
    apply_tf32(config)
    settings = config.get('extractor')
    if not settings or not settings.get('type'):
        raise InputError(f'{name} has no `extractor` with a `type`; configs/extractors has some')
    settings = Config(dict(extractor=settings)).to_dict()['extractor']
    if checkpoint is not None:
        weights = next((key for key in ('checkpoint', 'model') if key in settings), None)
        if weights is None:
            raise InputError(f'--checkpoint {checkpoint}: {settings["type"]} has no weights')
        settings[weights] = checkpoint
    kind = EXTRACTORS.get(settings['type'])
    if amp is not None and kind is not None and 'amp' not in signature(kind).parameters:
        raise InputError(
            f'--amp: {settings["type"]} has no network that could run in mixed precision'
        )
    given = dict(fps=fps, stride=stride, amp=amp)
    return settings | {key: value for key, value in given.items() if value is not None}


def build_extractor(settings: dict, device: str | None = None) -> FeatureExtractor:
    """Build an extractor on a device, by default the accelerator if there is one.

    Raises:
        ValueError: If the settings name no extractor or it refuses them, or the device cannot be
            used.
    """
    kind = EXTRACTORS.get(settings['type'])
    if TUBE_EXTRACTORS.get(settings['type']) is not None:
        raise InputError(
            f'{settings["type"]} describes tubes, not clips: `mmn ground` and '
            'tools/data/make_shapes_tubes.py use it'
        )
    if kind is None:
        raise InputError(
            f'there is no extractor {settings["type"]!r}; there are '
            f'{", ".join(sorted(EXTRACTORS.module_dict))}'
        )
    settings = dict(settings)
    if device is not None and 'device' in signature(kind).parameters:
        settings['device'] = require_device(device)
    try:
        return EXTRACTORS.build(settings)
    except TypeError as error:  # a misspelt argument
        raise InputError(f'extractor {settings["type"]}: {error}') from None


def _full_name(name: str) -> str:
    if '::' in name or Path(name).is_file():
        return name
    file = f'{name.removesuffix(".py")}.py'
    places = (config_root() / file, config_root() / 'extractors' / file)
    return next((str(path) for path in places if path.is_file()), file)
