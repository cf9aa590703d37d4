"""Features of tubes without weights: how the pixels inside the boxes look and move."""

from collections.abc import Sequence

import numpy as np

from mmn_plugin.apis.extractors.extractor_registry import TUBE_EXTRACTORS

from ..features.grid_feature_extractor import HUE_ANGLES, chroma_tables
from .tube_video import check_frames

CROP = 20  # pixels a side of a crop
CROP_CELLS = 5  # cells a side of the crop's coarse picture
HARMONICS = (2, 3, 4, 6)  # of the outline's directions


@TUBE_EXTRACTORS.register_module()
class TubeFeatureExtractor:
    """Two streams of statistics of the crops along a tube.

    A row stands for ``stride`` boxes. Of every second one the crop is taken out of its frame and,
    at the same place, out of the frames before and after, so that motion shows although the box
    follows it and nothing beside the box is seen. Where something is coloured is the saturation of
    a pixel.

    - ``appearance``: share of six hues; a coarse picture of the saturation; the outline's direction
      histogram as circular harmonics (3 is strong for triangles, 4 for squares).
    - ``flow``: motion to the left, right, up and down (normal flow, half-wave rectified pixel by
      pixel), growing and shrinking, appearing and vanishing; with a constant, since rows are
      normalised later and standing still has to differ from moving.

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
            raise ValueError(
                f'stride={stride}, margin={margin}: give a stride of at least 1 and a '
                'margin above 0'
            )
        self.stride = stride
        self.margin = margin
        self.size = size
        self._hues, self._saturation = chroma_tables()

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
        shade = (frames[:, 1] >> 2).astype(np.int16) * 64 + (frames[:, 2] >> 2)
        saturation = self._saturation[shade]  # (F, H, W)
        rows = [self._describe(saturation, shade, tube) for tube in tubes]
        return {stream: [pair[k] for pair in rows] for k, stream in enumerate(self.sizes)}

    def _describe(self, saturation, shade, tube) -> tuple[np.ndarray, np.ndarray]:
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
        hues = self._hues[shade[(time[:, None, None], *place)]]  # (m, CROP, CROP, 6)
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
        centre = (tube[:, 1:3] + tube[:, 3:]) / 2
        half = (tube[:, 3:] - tube[:, 1:3] + 1) / 2 * self.margin
        steps = (np.arange(CROP) + 0.5) / CROP * 2 - 1
        points = centre[:, None] + half[:, None] * steps[:, None]  # (m, CROP, 2) x, y
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
