"""Clip features of a neural network."""
import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from torch import Tensor, nn

from mmn_plugin.datasets.features import FeatureExtractor, RGBVideoReader, sliding_windows


class ClipFeatureExtractor(FeatureExtractor):
    """Runs a network over clips that slide along a video.

    Row k stands for frames ``k * stride ... (k + 1) * stride - 1``; its clip has the same middle
    (see `sliding_windows`). The network is built and its weights are read at the first use.

    Args:
        fps (float): Frames per second that are looked at, whatever the video's own rate.
        stride (int): Frames from one row to the next.
        clip_len (int): Frames of a clip.
        frame_interval (int): Frames from one frame of a clip to the next.
        batch_size (int): Clips that go through the network together.
        device (str, optional): Defaults to None: the accelerator if there is one.

    Raises:
        ValueError: If a number is not positive.
    """

    workers = 0  # PyTorch uses the cores, or a GPU, by itself

    def __init__(self, fps: float, stride: int, clip_len: int, frame_interval: int,
                 batch_size: int, device: str | None) -> None:
        for name, value in dict(fps=fps, stride=stride, clip_len=clip_len,
                                frame_interval=frame_interval, batch_size=batch_size).items():
            if not value > 0 or (name != 'fps' and value != int(value)):
                raise ValueError(f'{type(self).__name__}: {name}={value}; it must be a '
                                 f'{"" if name == "fps" else "whole "}number above 0')
        self.fps = float(fps)
        self.stride = stride
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.batch_size = batch_size
        self.device = device or get_device()
        self._model: nn.Module | None = None
        self._num_features: int | None = None
        self._identity: str | None = None

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network with its weights, on the CPU."""

    @abstractmethod
    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """Scale and crop a frame (H, W, 3) uint8 RGB; all frames of a clip are stacked then."""

    @abstractmethod
    def describe(self, clips: Tensor) -> Tensor:
        """Features (B, D) of clips (B, clip_len, *frame), on the device."""

    @abstractmethod
    def describe_settings(self) -> dict:
        """What decides the features beside the weights."""

    @property
    def model(self) -> nn.Module:
        """The network in evaluation mode, on the device."""
        if self._model is None:
            self._model = self.build_model().eval().requires_grad_(False).to(self.device)
        return self._model

    @property
    def identity(self) -> str:
        """Settings and a digest of the weights, as JSON."""
        if self._identity is None:
            content = dict(type=type(self).__name__, **self.describe_settings(),
                           clip_len=self.clip_len, frame_interval=self.frame_interval,
                           weights=digest(self.model))
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

    def blocks(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Describe a stream of frames.

        Args:
            frames (Iterable[np.ndarray]): (H, W, 3) uint8 RGB.

        Yields:
            np.ndarray: (n, D) float32, n at most ``batch_size``.

        Raises:
            RuntimeError: If the network gives something else than one vector per clip.
        """
        clips = sliding_windows(map(self.prepare, frames), self.stride, self.clip_len,
                                self.frame_interval)
        while batch := list(islice(clips, self.batch_size)):
            clip_batch = torch.from_numpy(np.stack(batch)).to(self.device)
            with torch.inference_mode():
                features = self.describe(clip_batch)  # (B, D)
            if features.ndim != 2 or len(features) != len(batch):
                raise RuntimeError(f'{type(self).__name__}: features of {len(batch)} clips have '
                                   f'the shape {tuple(features.shape)}, not ({len(batch)}, D)')
            yield features.float().cpu().numpy()


def digest(model: nn.Module) -> str:
    """Short digest of all weights and buffers, equal wherever the file came from."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return f'sha256:{total.hexdigest()[:16]}'
