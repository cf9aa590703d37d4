"""Clip features of a neural network."""

import hashlib
import json
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from torch import Tensor, nn

from mmn_plugin.datasets.features import FeatureExtractor, RGBVideoReader, sliding_windows
from mmn_plugin.engine.runner.amp import amp_dtype

DECODERS = 4  # threads that feed an accelerator, unless another number is asked for


class ClipFeatureExtractor(FeatureExtractor):
    """Runs a network over clips that slide along a video.

    Row k stands for frames ``k * stride ... (k + 1) * stride - 1``; its clip has the same middle
    (see `sliding_windows`). The network is built and its weights are read at the first use. Batches
    for a GPU are prepared in pinned memory and copied while the host goes on. Several threads may
    use one extractor; they take turns at the network.

    Args:
        fps (float): Frames per second that are looked at, whatever the video's own rate.
        stride (int): Frames from one row to the next.
        clip_len (int): Frames of a clip.
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
        clip_len: int,
        frame_interval: int,
        batch_size: int,
        device: str | None,
        amp: str | None = None,
    ) -> None:
        for name, value in dict(
            fps=fps,
            stride=stride,
            clip_len=clip_len,
            frame_interval=frame_interval,
            batch_size=batch_size,
        ).items():
            if not value > 0 or (name != 'fps' and value != int(value)):
                raise ValueError(
                    f'{type(self).__name__}: {name}={value}; it must be a '
                    f'{"" if name == "fps" else "whole "}number above 0'
                )
        self.fps = float(fps)
        self.stride = stride
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.batch_size = batch_size
        self.device = device or get_device()
        self._device_type = torch.device(self.device).type
        self._dtype = getattr(torch, amp_dtype(amp, self._device_type)) if amp else None
        self.amp = {torch.bfloat16: 'bf16', torch.float16: 'fp16'}.get(self._dtype)
        self.threads = self._device_type != 'cpu'
        self.workers = DECODERS if self.threads else 0  # on the CPU PyTorch uses the cores itself
        self._on_gpu = self._device_type == 'cuda'
        self._lock = threading.RLock()  # what is built at the first use takes it again
        self._model: nn.Module | None = None
        self._num_features: int | None = None
        self._identity: str | None = None

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != '_lock'}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network with its weights, on the CPU."""

    @abstractmethod
    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Scale and crop a frame (H, W, 3) uint8 RGB; all frames of a clip are stacked then.

        Several threads may do so at once.
        """

    @abstractmethod
    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of clips (B, clip_len, *frame), on the device; one call at a time."""

    @abstractmethod
    def describe_settings(self) -> dict:
        """What decides the features beside the weights."""

    @property
    def model(self) -> nn.Module:
        """The network in evaluation mode, on the device."""
        with self._lock:
            if self._model is None:
                self._model = self.build_model().eval().requires_grad_(False).to(self.device)
            return self._model

    @property
    def identity(self) -> str:
        """Settings and a digest of the weights, as JSON."""
        with self._lock:
            if self._identity is None:
                content = dict(
                    type=type(self).__name__,
                    **self.describe_settings(),
                    clip_len=self.clip_len,
                    frame_interval=self.frame_interval,
                    weights=digest(self.model),
                )
                if self.amp:  # features made before there was a choice keep their identity
                    content['amp'] = self.amp
                self._identity = json.dumps(content, sort_keys=True)
            return self._identity

    @property
    def num_features(self) -> int:
        """Feature size D, found out with one grey clip."""
        if self._num_features is None:
            grey = [np.full((64, 64, 3), 128, np.uint8)]
            self._num_features = next(self.blocks(grey)).shape[1]
        return self._num_features

    def reader(self, video: str | Path) -> RGBVideoReader:
        """Frames of a file in colour and full size."""
        return RGBVideoReader(video, self.fps)

    def batches(self, frames: Iterable[np.ndarray]) -> Generator[Tensor, None, None]:
        """Prepare the clips of a stream of frames.

        Args:
            frames (Iterable[np.ndarray]): (H, W, 3) uint8 RGB.

        Yields:
            Tensor: (n, clip_len, *frame), n at most ``batch_size``; in pinned memory for a GPU.
        """
        clips = sliding_windows(
            map(self.prepare, frames), self.stride, self.clip_len, self.frame_interval
        )
        while (batch := self._stack(clips)) is not None:
            yield batch

    def _stack(self, clips: Iterator[np.ndarray]) -> Tensor | None:
        """The next clips in one tensor; None if there are none."""
        batch = list(islice(clips, self.batch_size))
        if not batch:
            return None
        with torch.cuda.device(self.device) if self._on_gpu else nullcontext():
            stacked = torch.empty(
                (len(batch), *batch[0].shape),
                pin_memory=self._on_gpu,
                dtype=torch.from_numpy(batch[0]).dtype,
            )
        np.stack(batch, out=stacked.numpy())
        return stacked

    def describe_batch(self, batch: Tensor) -> np.ndarray:
        """Run the network.

        Threads take turns only until a GPU has its orders: while one waits for its features, the
        batch of the next is on its way.

        Args:
            batch (Tensor): (n, clip_len, *frame), on the CPU.

        Returns:
            np.ndarray: (n, D) float32.

        Raises:
            RuntimeError: If the network gives something else than one vector per clip.
        """
        with self._lock:
            with torch.inference_mode(), self._precision():
                features = self.describe(batch.to(self.device, non_blocking=self._on_gpu))
            if features.ndim != 2 or len(features) != len(batch):
                raise RuntimeError(
                    f'{type(self).__name__}: features of {len(batch)} clips have '
                    f'the shape {tuple(features.shape)}, not ({len(batch)}, D)'
                )
            features = features.float().to('cpu', non_blocking=self._on_gpu)  # (n, D)
            copied = self._mark() if self._on_gpu else None
        if copied is not None:
            copied.synchronize()
        return features.numpy()

    def _precision(self) -> AbstractContextManager:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, self._dtype)

    def _mark(self) -> torch.cuda.Event:
        """What to wait for until all that the GPU was told so far is done."""
        event = torch.cuda.Event(blocking=True)  # leaves the core to those who decode
        event.record(torch.cuda.current_stream(self.device))
        return event


def digest(model: nn.Module) -> str:
    """Short digest of all weights and buffers, equal wherever the file came from."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f'sha256:{total.hexdigest()[:16]}'
