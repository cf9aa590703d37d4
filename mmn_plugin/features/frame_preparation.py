"""Scaling, cropping and normalizing of frames, in batches on any device, as a processor says."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from mmn_plugin.errors import InputError

FILTERS = {2: 'bilinear', 3: 'bicubic'}  # PIL's numbers
CHUNK = 1 << 26  # bytes of float64 that are scaled at once
BITS = 22  # of the weights' fractions
SIDES = ({'shortest_edge'}, {'height', 'width'})  # kinds of a size that are known


@dataclass(frozen=True)
class FramePreparation:
    """What an image or video processor of `transformers` does to a frame.

    Scaled frames are those of Pillow, level for level, on every device: its filters widened by the
    scale, its fixed-point weights, first along rows and then along columns, with whole levels in
    between. Pillow 13 takes the columns of some tall pictures first, where hard edges then differ
    by several levels; earlier releases and torchvision do not, with which the models were made.

    Args:
        size (dict | None): ``shortest_edge``, or ``height`` and ``width``, in pixels; None: frames
            keep theirs.
        crop_size (tuple[int, int] | None): Height and width that are cut out of the middle; what is
            missing is black.
        resample (str): ``'bilinear'`` or ``'bicubic'``.
        rescale_factor (float): What levels 0 to 255 are multiplied with.
        mean (tuple[float, ...] | None): Subtracted then, by channel; None: frames are not
            normalized.
        std (tuple[float, ...] | None): Divided by.
    """

    size: dict | None
    crop_size: tuple[int, int] | None
    resample: str
    rescale_factor: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def of_processor(cls, settings: Mapping, name: str) -> 'FramePreparation':
        """Read the settings of an image or video processor, as its JSON holds them.

        Raises:
            ValueError: If it does something else, or does not say what it does.
        """

        def get(key: str, flag: str = ''):
            if flag and not settings.get(flag):
                return None
            if settings.get(key) is None:
                raise InputError(f'the processor of {name} has no {key!r} in its settings')
            return settings[key]

        size, crop = get('size', 'do_resize'), get('crop_size', 'do_center_crop')
        resample = settings.get('resample', 2) if size is None else get('resample')
        sides = {key for key, value in (size or {}).items() if value}
        if settings.get('do_pad') or (size and sides not in SIDES) or resample not in FILTERS:
            raise InputError(
                f'the processor of {name} pads frames, or scales them in a way that is not '
                f'supported (do_pad={settings.get("do_pad")}, size={size}, resample={resample}; '
                f'known: {", ".join(map(str, FILTERS))}, to the shortest edge or height and width)'
            )
        mean, std = (get(f'image_{key}', 'do_normalize') for key in ('mean', 'std'))
        return cls(
            size and {key: int(size[key]) for key in sorted(sides)},
            crop and (int(crop['height']), int(crop['width'])),
            FILTERS[resample],
            float(get('rescale_factor', 'do_rescale') or 1),
            mean and tuple(mean),
            std and tuple(std),
        )

    @property
    def settings(self) -> dict:
        """Plain data that tells preparations apart."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def scale(self, frames: Tensor) -> Tensor:
        """Scale and crop.

        Args:
            frames (Tensor): (F, H, W, 3) uint8 RGB, on any device.

        Returns:
            Tensor: (F, 3, h, w) uint8.
        """
        height, width = self._scaled_size(*frames.shape[1:3])
        frames = _scaled(frames, 2, width, self.resample)
        frames = _scaled(frames, 1, height, self.resample)
        return self._cropped(frames.permute(0, 3, 1, 2))

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        if 'height' in self.size:
            return self.size['height'], self.size['width']
        short, long = sorted((height, width))
        edge = self.size['shortest_edge']
        sides = edge, int(edge * long / short)
        return sides if height <= width else sides[::-1]

    def _cropped(self, frames: Tensor) -> Tensor:
        """The middle (F, 3, h, w), which is a copy, so that no full frame is kept for it."""
        if self.crop_size is None:
            return frames.contiguous()
        for axis, wanted in ((-2, self.crop_size[0]), (-1, self.crop_size[1])):
            lack = wanted - frames.shape[axis]
            if lack > 0:
                edges = (ceil(lack / 2), lack // 2)
                frames = pad(frames, edges if axis == -1 else (0, 0, *edges))
            frames = frames.narrow(axis, (frames.shape[axis] - wanted) // 2, wanted)
        return frames.clone(memory_format=torch.contiguous_format)

    def normalize(self, frames: Tensor) -> Tensor:
        """Float32 (..., 3, h, w) of scaled frames, as a network takes them."""
        frames = frames.float() * self.rescale_factor
        if self.mean is None:
            return frames
        mean, std = (frames.new_tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (frames - mean) / std

    def stream(self, frames: Iterable[np.ndarray], device: str) -> Iterator[Tensor]:
        """Scale a stream of frames on a device, some at a time.

        Args:
            frames (Iterable[np.ndarray]): (H, W, 3) uint8 RGB; their size may change.
            device (str): Where they are scaled, on a GPU beside what it computes meanwhile.

        Yields:
            Tensor: (3, h, w) uint8 on the device, one per frame.
        """
        on_gpu = torch.device(device).type == 'cuda'
        stream = torch.cuda.Stream(device) if on_gpu else None
        for chunk in _chunks(frames):
            with torch.cuda.stream(stream) if on_gpu else nullcontext():
                scaled = self.scale(torch.from_numpy(np.stack(chunk)).to(device))
            if on_gpu:
                stream.synchronize()
                scaled.record_stream(torch.cuda.current_stream(device))
            yield from scaled


def _scaled(frames: Tensor, axis: int, size: int, kind: str) -> Tensor:
    """Frames (..., uint8) scaled along one axis."""
    if frames.shape[axis] == size:
        return frames
    places, weights = (taps.to(frames.device) for taps in _taps(frames.shape[axis], size, kind))
    lines = frames.movedim(axis, 0)
    levels = lines.reshape(len(lines), -1).double()  # whole numbers stay exact, in any order
    sums = embedding_bag(places, levels, per_sample_weights=weights, mode='sum')
    sums = sums.add_(2 ** (BITS - 1)).mul_(2.0**-BITS).floor_().clamp_(0, 255)
    return sums.to(torch.uint8).reshape(size, *lines.shape[1:]).movedim(0, axis)


@lru_cache(maxsize=64)
def _taps(size: int, wanted: int, kind: str) -> tuple[Tensor, Tensor]:
    """Of each of ``wanted`` samples, places (wanted, K) among ``size`` ones and their weights.

    The weights are whole numbers of ``2 ** -BITS``, as Pillow rounds them.
    """
    scale = size / wanted
    stretch = max(scale, 1.0)
    reach = (2.0 if kind == 'bicubic' else 1.0) * stretch
    centers = (np.arange(wanted)[:, None] + 0.5) * scale
    first = np.maximum(np.trunc(centers - reach + 0.5), 0)
    end = np.minimum(np.trunc(centers + reach + 0.5), size)
    places = first + np.arange(2 * ceil(reach) + 1)  # (wanted, K)
    away = np.abs((places - centers + 0.5) / stretch)
    values = np.maximum(1 - away, 0)
    if kind == 'bicubic':  # Keys' kernel with a = -0.5
        near, far = (1.5 * away - 2.5) * away**2 + 1, ((2.5 - away / 2) * away - 4) * away + 2
        values = np.where(away < 1, near, np.where(away < 2, far, 0))
    values = np.where(places < end, values, 0)
    values = values / values.sum(1, keepdims=True) * 2**BITS
    places = torch.from_numpy(places.clip(0, size - 1)).long()
    return places, torch.from_numpy(np.trunc(values + np.copysign(0.5, values)))


def _chunks(frames: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Frames of one size together, as many as `CHUNK` allows."""
    held: list[np.ndarray] = []
    for frame in frames:
        full = held and (len(held) + 1) * frame.size * 8 > CHUNK
        if full or (held and held[0].shape != frame.shape):
            yield held
            held = []
        held.append(frame)
    if held:
        yield held
