"""Features without weights: of a grid of cells, and of boxes."""

from collections.abc import Generator, Iterable, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path

import numpy as np

from mmn_plugin.datasets import check_frames
from mmn_plugin.errors import InputError
from mmn_plugin.features import EXTRACTORS, FeatureExtractor, VideoReader
from mmn_plugin.features.extractor import TUBE_EXTRACTORS

# Angle in the (U, V) plane of red, yellow, green, cyan, blue, magenta (ITU-R BT.601).
HUE_ANGLES = np.deg2rad([109.0, 173.0, 231.0, 289.0, 353.0, 51.0])
PER_HUE = 18  # numbers per hue and step
CONTEXT = 3  # pairs of frames before and after a step that tell where something is going on
CELLS = 8  # cells a side in which activity is noticed
COARSE = 4  # cells a side of the coarse grids that are given out
ACTIVITY = 0.012  # mean change of saturation, summed over 3 x 3 cells, that counts as half active
BLOCK = 16  # steps computed at once; bounds the memory


def _chroma_tables() -> tuple[np.ndarray, np.ndarray]:
    levels = np.arange(64) * 4 + 2 - 128
    u, v = np.meshgrid(levels, levels, indexing='ij')
    closeness = np.exp(12 * np.cos(np.arctan2(v, u).reshape(-1, 1) - HUE_ANGLES))
    hues = closeness / closeness.sum(1, keepdims=True)
    saturation = ((np.hypot(u, v) - 12) / 48).clip(0, 1)
    return hues.astype(np.float32), saturation.reshape(-1).astype(np.float32)


# Shares of the hues (4096, 6) and saturation (4096,) of a `shade`.
HUES, SATURATION = _chroma_tables()


def shade(frames: np.ndarray) -> np.ndarray:
    """Place of each pixel of YUV frames (F, 3, H, W) in `HUES` and `SATURATION`: (F, H, W)."""
    return (frames[:, 1] >> 2).astype(np.int16) * 64 + (frames[:, 2] >> 2)


@EXTRACTORS.register_module()
class GridFeatureExtractor(FeatureExtractor):
    """Color and motion statistics of short steps of a video.

    Every frame is scaled to a small square. Saturation s(x, y, t) in [0, 1] says where something
    colored is. For each of six hues and for all of them together a step has 18 numbers:

    - how much there is of it, and how much of that lies where something is going on;
    - its outline there: the gradient's direction histogram as circular harmonics 2, 3, 4 and 6
      (3 is strong for triangles, 4 for squares and, negative, for diamonds), and outline length
      against area;
    - motion to the left, right, up, down (normal flow, -grad s * ds/dt, half-wave rectified pixel
      by pixel so that opposite motions do not cancel), growing, shrinking, and appearing.

    "Where something is going on" are the cells of a grid with changes around that time, so that of
    two red objects the moving one is described. Then come 4 x 4 grids of brightness, saturation and
    change. Nothing is learned and no weights are needed.

    Args:
        fps (float): Frames per second that are looked at. Default: 8.
        stride (int): Frames per step. Default: 6 (0.75 s).
        size (int): Side of the scaled frame, a multiple of 8. Default: 48.
    """

    name = 'grid'
    version = 1

    def __init__(self, fps: float = 8.0, stride: int = 6, size: int = 48) -> None:
        if fps <= 0 or stride < 1 or size < 16 or size % CELLS:
            raise InputError(
                f'fps={fps}, stride={stride}, size={size}: fps must be > 0, stride '
                f'>= 1, size >= 16 and a multiple of {CELLS}'
            )
        self.fps = float(fps)
        self.stride = stride
        self.size = size

    @property
    def num_features(self) -> int:
        """Feature size D."""
        return PER_HUE * (len(HUE_ANGLES) + 1) + 3 * COARSE * COARSE

    @property
    def identity(self) -> str:
        """Name, version and frame size."""
        return f'{self.name} v{self.version} size={self.size}'

    def reader(self, video: str | Path) -> VideoReader:
        """Frames of a file, as small squares."""
        return VideoReader(video, self.fps, self.size)

    def batches(
        self, frames: Iterable[np.ndarray]
    ) -> Generator[tuple[np.ndarray, int], None, None]:
        """Cut a stream of frames into overlapping blocks.

        Args:
            frames (Iterable[np.ndarray]): (3, size, size) uint8, as :class:`VideoReader` yields.

        Yields:
            tuple: frames (steps * stride + 2 * CONTEXT + 1, 3, size, size) and the number of steps;
            the ends of the video are continued by standing pictures.
        """
        frames = iter(frames)
        first = next(frames)
        # The pair (t - 1, t) belongs to frame t: one frame more before than after.
        held = [first] * (CONTEXT + 2)
        frames_left = True
        while frames_left:
            real = len(held) - CONTEXT - 1
            wanted = BLOCK * self.stride + CONTEXT
            while real < wanted and (picture := next(frames, None)) is not None:
                held.append(picture)
                real += 1
            frames_left = real == wanted
            steps = BLOCK
            if not frames_left:
                steps = -(-real // self.stride)
                missing = steps * self.stride + CONTEXT - real
                held = [*chain(held, repeat(held[-1], missing))]
            if steps:
                yield np.stack(held[: steps * self.stride + 2 * CONTEXT + 1]), steps
            held = held[steps * self.stride :]

    def describe_batch(self, batch: tuple[np.ndarray, int]) -> np.ndarray:
        """Features (steps, D) float32 of a block; the video's very last row may stand for less."""
        frames, steps = batch
        shades = shade(frames)
        saturation = SATURATION[shades]
        now, change = (saturation[1:] + saturation[:-1]) / 2, saturation[1:] - saturation[:-1]
        # In a pair, the hue is that of the more colorful frame: the object may have just left.
        shades = np.where(change >= 0, shades[1:], shades[:-1])
        active = self._activity(change, steps)  # (steps, CELLS, CELLS)
        keep = slice(CONTEXT, CONTEXT + steps * self.stride)
        now, change, shades = now[keep], change[keep], shades[keep]
        color = self._color_statistics(now, change, shades, active).reshape(steps, -1)
        luma = frames[CONTEXT + 1 :][: steps * self.stride, 0].astype(np.float32) / 255
        grids = [
            self._grid(luma, steps),
            self._grid(now, steps),
            np.sqrt(self._grid(np.abs(change), steps)),
        ]
        return np.concatenate([color, *grids], 1).astype(np.float32)

    def _activity(self, change: np.ndarray, steps: int) -> np.ndarray:
        """How much goes on in and around each cell during a step, 0 to 1: (steps, CELLS, CELLS)."""
        cell = self.size // CELLS
        energy = np.abs(change).reshape(-1, CELLS, cell, CELLS, cell).sum((2, 4))
        span = self.stride + 2 * CONTEXT
        windows = np.lib.stride_tricks.sliding_window_view(energy, span, 0)[:: self.stride]
        energy = windows.sum(-1)[:steps] / (span * cell * cell)
        padded = np.pad(energy, ((0, 0), (1, 1), (1, 1)))
        spread = sum(padded[:, i : i + CELLS, j : j + CELLS] for i in range(3) for j in range(3))
        return spread**2 / (spread**2 + ACTIVITY**2)

    def _color_statistics(self, now, change, shades, active) -> np.ndarray:
        """Sums over the colored pixels of each step, normalized: (steps, hues + 1, PER_HUE)."""
        # A few in a hundred pixels are colored; all others are left alone.
        t, y, x = np.nonzero((now > 0.02) | (np.abs(change) > 0.02))
        dx, dy = _gradient(now, t, y, x)
        step, cell = t // self.stride, self.size // CELLS
        values = _measure(
            now[t, y, x], change[t, y, x], dx, dy, active[step, y // cell, x // cell]
        )  # (n, 18)
        hues = HUES[shades[t, y, x]]  # (n, hues)
        bounds = np.searchsorted(step, np.arange(len(active) + 1))
        sums = np.stack([hues[i:j].T @ values[i:j] for i, j in pairwise(bounds)])
        sums = np.concatenate([sums, sums.sum(1, keepdims=True)], 1)  # (steps, hues + 1, 18)
        return _normalize(sums / self.stride, self.size)

    def _grid(self, values: np.ndarray, steps: int) -> np.ndarray:
        cell = self.size // COARSE
        values = values.reshape(steps, self.stride, COARSE, cell, COARSE, cell)
        return values.mean((1, 3, 5)).reshape(steps, -1)


def _gradient(now: np.ndarray, t, y, x) -> tuple[np.ndarray, np.ndarray]:
    """Central differences at some pixels; beyond its border the picture goes on unchanged."""
    last = now.shape[1] - 1
    dx = now[t, y, np.minimum(x + 1, last)] - now[t, y, np.maximum(x - 1, 0)]
    dy = now[t, np.minimum(y + 1, last), x] - now[t, np.maximum(y - 1, 0), x]
    return dx / 2, dy / 2


def _measure(now, change, dx, dy, active) -> np.ndarray:
    """Quantities of single pixels whose sums over a step are of use, (n, 18)."""
    squared = dx * dx + dy * dy
    slope = np.sqrt(squared)
    length = slope * active
    direction = (dx + 1j * dy) / np.maximum(slope, 1e-6)
    second = direction * direction
    third = second * direction
    columns = [now, now * active, length]
    for harmonic in (second, third, second * second, third * third):
        columns += [length * harmonic.real, length * harmonic.imag]
    # Where the saturation grows to the right and with time, the edge moves to the left.
    for flow in (dx * change, -dx * change, dy * change, -dy * change):
        columns.append(np.maximum(flow, 0))
    columns += [squared * active, np.maximum(change, 0), np.maximum(-change, 0)]
    return np.stack(columns, 1).astype(np.float32)


def _normalize(sums: np.ndarray, size: int) -> np.ndarray:
    """Make ratios of the sums, so that an object's size and the window's length cancel.

    The constants are areas and lengths in a frame of 48 pixels: what is smaller counts as nothing.
    """
    side = size / 48
    total, busy, length, slope = (sums[..., i : i + 1] for i in (0, 1, 2, 15))
    appear, vanish = sums[..., 16:17], sums[..., 17:18]
    area = busy + 10 * side**2
    growth = (appear - vanish) / area
    return np.concatenate(
        [
            total / (total + 60 * side**2),
            busy / (busy + 60 * side**2),
            sums[..., 3:11] / (length + 4 * side),
            length / (np.sqrt(busy) + 3 * side) / 4,
            sums[..., 11:15] / (slope + side) / side * 2,
            np.maximum(growth, 0) / (np.abs(growth) + 0.05),
            np.maximum(-growth, 0) / (np.abs(growth) + 0.05),
            2 * (appear + vanish) / area,
        ],
        -1,
    )


CROP = 20  # pixels a side of a crop
CROP_CELLS = 5  # cells a side of the crop's coarse picture
HARMONICS = (2, 3, 4, 6)  # of the outline's directions


@TUBE_EXTRACTORS.register_module()
class TubeFeatureExtractor:
    """Two streams of statistics of the crops along a tube.

    A row stands for ``stride`` boxes. Of every second one the crop is taken out of its frame and,
    at the same place, out of the frames before and after, so that motion shows although the box
    follows it and nothing beside the box is seen. Where something is colored is the saturation of
    a pixel.

    - ``appearance``: share of six hues; a coarse picture of the saturation; the outline's direction
      histogram as circular harmonics (3 is strong for triangles, 4 for squares).
    - ``flow``: motion to the left, right, up and down (normal flow, half-wave rectified pixel by
      pixel), growing and shrinking, appearing and vanishing; with a constant, since rows are
      normalized later and standing still has to differ from moving.

    Args:
        stride (int): Boxes per row. Defaults to 4.
        margin (float): How much larger than the box a crop is. Defaults to 1: pixels inside the
            box alone.
        size (int): Side of the square that a video's frames are scaled to, with their boxes, where
            it is read from a file. Defaults to 96.
    """

    name = 'tube_crops'
    version = 1
    sizes = dict(appearance=len(HUE_ANGLES) + CROP_CELLS**2 + 2 * len(HARMONICS) + 1, flow=11)

    def __init__(self, stride: int = 4, margin: float = 1.0, size: int = 96):
        if stride < 1 or margin <= 0:
            raise InputError(
                f'stride={stride}, margin={margin}: give a stride of at least 1 and a '
                'margin above 0'
            )
        self.stride = stride
        self.margin = margin
        self.size = size

    @property
    def settings(self) -> dict:
        """What identifies this extractor: equal settings, equal features."""
        return dict(
            extractor=f'{self.name} v{self.version}',
            stride=self.stride,
            margin=self.margin,
            size=self.size,
        )

    def __call__(
        self, frames: np.ndarray, tubes: Sequence[np.ndarray]
    ) -> dict[str, list[np.ndarray]]:
        """Describe tubes.

        Args:
            frames (np.ndarray): (F, 3, H, W) uint8, YUV, as `VideoReader` gives them at
                `VideoInfo.times`; the boxes are in its pixels.
            tubes (Sequence[np.ndarray]): (n, 5) each.

        Returns:
            dict[str, list[np.ndarray]]: Stream -> per tube (rows, D) float32.

        Raises:
            TubeError: If a tube has a box in a frame after the last one.
        """
        for index, tube in enumerate(tubes):
            check_frames(tube, len(frames), f'tube {index}')
        shades = shade(frames)
        saturation = SATURATION[shades]
        rows = [self._describe(saturation, shades, tube) for tube in tubes]
        return {stream: [pair[k] for pair in rows] for k, stream in enumerate(self.sizes)}

    def _describe(self, saturation, shades, tube) -> tuple[np.ndarray, np.ndarray]:
        # every second box, but at least one of each row
        taken = np.unique(
            np.concatenate([np.arange(0, len(tube), 2), np.arange(0, len(tube), self.stride)])
        )
        place = self._crop_places(tube[taken], saturation.shape)
        time = tube[taken, 0].astype(np.int64)
        before, now, after = (
            saturation[((time + step).clip(0, len(saturation) - 1)[:, None, None], *place)]
            for step in (-1, 0, 1)
        )  # (m, CROP, CROP)
        hues = HUES[shades[(time[:, None, None], *place)]]  # (m, CROP, CROP, 6)
        row = taken // self.stride
        first = np.flatnonzero(np.diff(row, prepend=-1))
        counts = np.diff([*first, len(row)])[:, None]

        def mean(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, first, axis=0) / counts

        return (
            _appearance(mean, now, hues).astype(np.float32),
            _flow(mean, before, now, after).astype(np.float32),
        )

    def _crop_places(self, tube: np.ndarray, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Rows (m, CROP, 1) and columns (m, 1, CROP) of the pixels of each crop."""
        center = (tube[:, 1:3] + tube[:, 3:]) / 2
        half = (tube[:, 3:] - tube[:, 1:3] + 1) / 2 * self.margin
        steps = (np.arange(CROP) + 0.5) / CROP * 2 - 1
        points = center[:, None] + half[:, None] * steps[:, None]  # (m, CROP, 2) x, y
        points = np.rint(points).astype(np.int64).clip(0, (shape[2] - 1, shape[1] - 1))
        return points[:, :, None, 1], points[:, None, :, 0]


def _appearance(mean, now, hues) -> np.ndarray:
    dy, dx = np.gradient(now, axis=(1, 2))
    amount = mean(np.einsum('myx,myxh->mh', now, hues)) / CROP**2  # (rows, 6)
    cell = CROP // CROP_CELLS
    cells = now.reshape(len(now), CROP_CELLS, cell, CROP_CELLS, cell)
    picture = cells.mean((2, 4)).reshape(len(now), -1)
    length = np.hypot(dx, dy)
    direction = (dx + 1j * dy) / np.maximum(length, 1e-6)
    total = mean(length.sum((1, 2))[:, None])
    turned = np.concatenate([(length * direction**k).sum((1, 2))[:, None] for k in HARMONICS], 1)
    turned = mean(turned) / (total + 4)
    share = amount / (amount.sum(1, keepdims=True) + 0.02)
    return np.concatenate(
        [share, mean(picture), 2 * turned.real, 2 * turned.imag, total / CROP**2 * 4], 1
    )


def _flow(mean, before, now, after) -> np.ndarray:
    # In a box that fits, the edges of the frame itself lie on its border; those of the frames
    # around it lie inside.
    dy, dx = np.gradient((before + after) / 2, axis=(1, 2))
    change = (after - before) / 2
    slope = mean((dx * dx + dy * dy).sum((1, 2))[:, None]) + 1
    area = mean(now.sum((1, 2))[:, None]) + 10
    # Where the saturation grows to the right and with time, the edge moves to the left.
    flows = [
        mean(np.maximum(flow, 0).sum((1, 2))[:, None]) / slope
        for flow in (dx * change, -dx * change, dy * change, -dy * change)
    ]
    gain, loss = (
        mean(np.maximum(part, 0).sum((1, 2))[:, None]) / area for part in (change, -change)
    )
    net = mean(change.sum((1, 2))[:, None]) / area
    one = np.ones_like(net)
    turn = [flows[0] - flows[1], flows[2] - flows[3]]
    return np.concatenate(
        [
            0.5 * one,
            *(2 * flow for flow in flows),
            *(3 * side for side in turn),
            np.maximum(12 * net, 0).clip(max=2),
            np.maximum(-12 * net, 0).clip(max=2),
            2 * gain,
            2 * loss,
        ],
        1,
    )
