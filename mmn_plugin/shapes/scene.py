"""Scenes of moving shapes, and their pictures."""

import itertools
from dataclasses import dataclass

import numpy as np

# RGB of each colour. All are saturated and brighter than any background.
COLOURS = {
    'red': (228, 62, 58),
    'yellow': (232, 208, 58),
    'green': (62, 196, 72),
    'cyan': (66, 208, 216),
    'blue': (76, 104, 236),
    'purple': (208, 76, 214),
}

SHAPES = ('circle', 'square', 'triangle', 'diamond', 'cross')

ACTIONS = ('left', 'right', 'up', 'down', 'grow', 'shrink', 'blink', 'loop')

# One in this many combinations is held out of training.
HELD_OUT_MODULUS = 8


def held_out_combinations(seed: int) -> set[tuple[str, str, str]]:
    """Combinations of (colour, shape, action) that no training video shows.

    The triples lie on a diagonal of the colour x shape x action box, so that training still shows
    every pair of attributes: what is new at test time is the combination alone.

    Args:
        seed (int): The corpus' seed; it chooses the diagonal.

    Returns:
        set[tuple[str, str, str]]: One eighth of the 240 triples.
    """
    indexed = itertools.product(enumerate(COLOURS), enumerate(SHAPES), enumerate(ACTIONS))
    return {
        (colour, shape, action)
        for (c, colour), (s, shape), (a, action) in indexed
        if (c + s + a) % HELD_OUT_MODULUS == seed % HELD_OUT_MODULUS
    }


@dataclass(frozen=True)
class Event:
    """An object does something for a while.

    Attributes:
        colour (str): Key of ``COLOURS``.
        shape (str): One of ``SHAPES``.
        action (str): One of ``ACTIONS``.
        start (float): Seconds.
        end (float): Seconds, > ``start``.
    """

    colour: str
    shape: str
    action: str
    start: float
    end: float

    @property
    def combination(self) -> tuple[str, str, str]:
        """(colour, shape, action)."""
        return self.colour, self.shape, self.action

    @property
    def look(self) -> tuple[str, str]:
        """(colour, shape): what the object looks like, whatever it does."""
        return self.colour, self.shape


# Half-width to the left and right, height above and below the centre, in radii.
EXTENTS = {
    'circle': (0.95, 0.95, 0.95),
    'square': (0.85, 0.85, 0.85),
    'triangle': (1.09, 1.26, 0.63),
    'diamond': (1.13, 1.13, 1.13),
    'cross': (1.0, 1.0, 1.0),
}


@dataclass
class SceneObject:
    """A coloured shape with its state at each frame, in units of the frame's side.

    Attributes:
        colour (str): Key of ``COLOURS``.
        shape (str): One of ``SHAPES``.
        x (np.ndarray): (F,) centre, 0 = left edge, 1 = right edge.
        y (np.ndarray): (F,) centre, 0 = top edge, 1 = bottom edge.
        radius (np.ndarray): (F,) size.
        present (np.ndarray): (F,) bool; whether the object is in the scene.
        lit (np.ndarray): (F,) bool; False while a blinking object is dark. It is present then.
        tint (tuple): Deviation of this object's RGB from its colour's.
    """

    colour: str
    shape: str
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    present: np.ndarray
    lit: np.ndarray
    tint: tuple = (0, 0, 0)

    def tube(self, size: int) -> np.ndarray:
        """Boxes of the object in the frames where it is present.

        Args:
            size (int): Side of the frame in pixels.

        Returns:
            np.ndarray: (n, 5) int16: frame, x1, y1, x2, y2; pixels, x2 and y2 exclusive. A dark
            object of a blinking one keeps its box.
        """
        side, above, below = EXTENTS[self.shape]
        frames = np.flatnonzero(self.present)
        x, y, r = self.x[frames], self.y[frames], self.radius[frames]
        low = np.stack([x - side * r, y - above * r], 1) * size
        high = np.stack([x + side * r, y + below * r], 1) * size
        boxes = np.concatenate([np.floor(low + 1e-6), np.ceil(high - 1e-6)], 1).clip(0, size)
        return np.concatenate([frames[:, None], boxes], 1).astype(np.int16)  # (n, 5)


@dataclass
class Scene:
    """A video before it is rendered.

    Attributes:
        video_id (str): Name of the video, without suffix.
        duration (float): Seconds.
        fps (int): Frames per second.
        objects (list[SceneObject]): In drawing order; the last one is in front.
        events (list[Event]): In order of their start.
        sentences (list[str]): One per event.
        background (tuple[int, int]): Brightness (0 to 255) at the top and the bottom.
    """

    video_id: str
    duration: float
    fps: int
    objects: list[SceneObject]
    events: list[Event]
    sentences: list[str]
    background: tuple[int, int]

    def annotation(self) -> dict:
        """The video's entry in the published annotation format.

        Returns:
            dict: ``duration`` (seconds), ``timestamps`` [[start, end], ...] and ``sentences``.
        """
        return dict(
            duration=self.duration,
            timestamps=[[round(e.start, 3), round(e.end, 3)] for e in self.events],
            sentences=list(self.sentences),
        )

    def event_objects(self) -> list[int]:
        """The place of each event's object in ``objects``."""
        looks = [(item.colour, item.shape) for item in self.objects]
        return [looks.index(event.look) for event in self.events]


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
