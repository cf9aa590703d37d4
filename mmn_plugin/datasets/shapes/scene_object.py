"""One coloured shape and its way through the scene."""

from dataclasses import dataclass

import numpy as np

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
