"""Candidate tubes of a Shapes video, as a detector with a tracker would find them."""

from collections.abc import Sequence

import numpy as np


class CandidateTubes:
    """Makes imperfect tubes from those of all objects of a video.

    It knows where objects are, not what they look like, nor what happens, nor any sentence. Each
    object's tube may break in two, loses a few frames, and its boxes are off: by a shift and a
    scale of their own, which stay, and by a little of both that changes from frame to frame. Tubes
    that follow nothing are added, at least one, and as many as make ``min_tubes``.

    Args:
        size (int): Side of the frames in pixels.
        num_frames (int): Frames of the video.
        break_share (float): Share of the objects whose tube breaks. Defaults to 0.3.
        drop_share (float): Share of the frames without a box. Defaults to 0.03.
        shift (float): Standard deviation of the shift, in box sides. Defaults to 0.05.
        scale (float): Standard deviation of the logarithm of the scale. Defaults to 0.07.
        noise (float): Standard deviation of what changes. Defaults to 0.02.
        min_tubes (int): Least number of tubes. Defaults to 5.
    """

    MIN_BOXES = 16  # of a fragment

    def __init__(
        self,
        size: int,
        num_frames: int,
        break_share: float = 0.3,
        drop_share: float = 0.03,
        shift: float = 0.05,
        scale: float = 0.07,
        noise: float = 0.02,
        min_tubes: int = 5,
    ):
        self.size = size
        self.num_frames = num_frames
        self.break_share = break_share
        self.drop_share = drop_share
        self.shift, self.scale, self.noise = shift, scale, noise
        self.min_tubes = min_tubes

    def make(self, rng: np.random.Generator, objects: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Make the candidates of a video.

        Args:
            rng (np.random.Generator): Source of randomness.
            objects (Sequence[np.ndarray]): (n, 5) frame, x1, y1, x2, y2 of every object.

        Returns:
            list[np.ndarray]: (n, 5) float32, in random order.
        """
        tubes = [self._disturb(rng, part) for tube in objects for part in self._break(rng, tube)]
        for _ in range(max(1, self.min_tubes - len(tubes))):
            tubes.append(self._nothing(rng))
        return [tubes[i] for i in rng.permutation(len(tubes))]

    def _break(self, rng, tube: np.ndarray) -> list[np.ndarray]:
        if rng.random() >= self.break_share or len(tube) < 2 * self.MIN_BOXES + 4:
            return [tube]
        cut = int(rng.integers(self.MIN_BOXES, len(tube) - self.MIN_BOXES - 3))
        return [tube[:cut], tube[cut + int(rng.integers(0, 4)) :]]

    def _disturb(self, rng, tube: np.ndarray) -> np.ndarray:
        keep = rng.random(len(tube)) >= self.drop_share
        keep[rng.integers(len(tube))] = True
        frames, boxes = tube[keep, :1], tube[keep, 1:].astype(np.float64)
        centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
        off = rng.normal(0, self.shift, 2) + rng.normal(0, self.noise, centre.shape)
        grown = np.exp(rng.normal(0, self.scale, 2) + rng.normal(0, self.noise, side.shape))
        centre, half = centre + off * side, (side * grown - 1) / 2
        boxes = np.concatenate([centre - half, centre + half], 1)
        return np.concatenate([frames, boxes], 1).astype(np.float32)

    def _nothing(self, rng) -> np.ndarray:
        """A box that wanders about for a while."""
        length = int(rng.integers(self.num_frames // 4, self.num_frames + 1))
        start = int(rng.integers(0, self.num_frames - length + 1))
        way = np.linspace(*rng.uniform(0.1, 0.9, (2, 2)), length) * self.size  # (n, 2)
        half = rng.uniform(0.08, 0.2, 2) * self.size
        frames = np.arange(start, start + length)[:, None]
        return np.concatenate([frames, way - half, way + half], 1).astype(np.float32)
