"""From a scene to frames."""

import numpy as np

from .attributes import COLOURS
from .scene import Scene
from .scene_object import SceneObject


class SceneRenderer:
    """Draws scenes straight into the planes that a video encoder takes.

    Args:
        size (int): Side of the frame in pixels, even. Default: 96.
    """

    def __init__(self, size: int = 96) -> None:
        self.size = size

    def render(self, scene: Scene) -> np.ndarray:
        """Draw all frames of a scene.

        Args:
            scene (Scene): What to draw.

        Returns:
            np.ndarray: (F, 3 * size / 2, size) uint8; each frame in planar YUV 4:2:0, limited
            range: luma, then the two chroma planes at half the resolution.
        """
        num_frames, size = len(scene.objects[0].x), self.size
        shade = np.linspace(*scene.background, size, dtype=np.float32) * (219 / 255) + 16
        luma = np.empty((num_frames, size, size), np.float32)
        luma[:] = shade[:, None]
        chroma = np.full((2, num_frames, size // 2, size // 2), 128, np.float32)
        for item in scene.objects:
            self._draw(item, luma, chroma)
        planes = [
            np.rint(plane).astype(np.uint8).reshape(num_frames, -1) for plane in (luma, *chroma)
        ]
        return np.concatenate(planes, 1).reshape(num_frames, size * 3 // 2, size)

    def _draw(self, item: SceneObject, luma: np.ndarray, chroma: np.ndarray) -> None:
        frames = np.flatnonzero(item.present & item.lit)  # (n,)
        if len(frames) == 0:
            return
        x, y, radius = (
            value[frames].astype(np.float32) * self.size for value in (item.x, item.y, item.radius)
        )
        # A patch holds the largest outline; even corners, so that it covers whole chroma pixels.
        patch = min(2 * int(np.ceil(1.28 * radius.max() + 2)), self.size)
        left, top = (
            2 * (((v - patch / 2) / 2).astype(int).clip(0, (self.size - patch) // 2))
            for v in (x, y)
        )
        grid = np.arange(patch, dtype=np.float32) + 0.5
        dx = (grid + left[:, None] - x[:, None]) / radius[:, None]  # (n, p), in radii
        dy = (grid + top[:, None] - y[:, None]) / radius[:, None]  # (n, p)
        outside = _distance(item.shape, dx[:, None, :], dy[:, :, None])  # (n, p, p)
        cover = (0.5 - outside * radius[:, None, None]).clip(0, 1)
        brightness, *tones = _yuv(np.clip(np.add(COLOURS[item.colour], item.tint), 0, 255))
        _blend(luma, frames, top, left, cover, brightness)
        rows = cover[:, ::2] + cover[:, 1::2]
        coarse = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4  # (n, p / 2, p / 2)
        for plane, tone in zip(chroma, tones, strict=True):
            _blend(plane, frames, top // 2, left // 2, coarse, tone)


def _blend(plane: np.ndarray, frames, top, left, cover: np.ndarray, value: float) -> None:
    """Lay a colour over a patch of each frame; a loop of slices beats one fancy index here."""
    patch = cover.shape[1]
    drop, keep = cover * np.float32(value), 1 - cover
    for i, (frame, y, x) in enumerate(
        zip(frames.tolist(), top.tolist(), left.tolist(), strict=True)
    ):
        window = plane[frame, y : y + patch, x : x + patch]
        window *= keep[i]
        window += drop[i]


def _distance(shape: str, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Signed distance to the outline (y points down), good to a pixel's width around it."""
    if shape == 'circle':
        return np.sqrt(dx * dx + dy * dy) - 0.95
    across, down = np.abs(dx), np.abs(dy)
    if shape == 'square':
        return np.maximum(across, down) - 0.85
    if shape == 'diamond':
        return (across + down) * 0.7071 - 0.8
    if shape == 'triangle':
        return np.maximum(dy, 0.866 * across - 0.5 * dy) - 0.63
    return np.minimum(np.maximum(across - 1, down - 0.34), np.maximum(across - 0.34, down - 1))


def _yuv(rgb) -> tuple[float, float, float]:
    """ITU-R BT.601, limited range."""
    red, green, blue = (value / 255 for value in rgb)
    return (
        16 + 65.481 * red + 128.553 * green + 24.966 * blue,
        128 - 37.797 * red - 74.203 * green + 112 * blue,
        128 + 112 * red - 93.786 * green - 18.214 * blue,
    )
