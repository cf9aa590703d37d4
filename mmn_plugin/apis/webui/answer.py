"""What the model says about one sentence."""

import io
from dataclasses import dataclass

import numpy as np


@dataclass
class Answer:
    """A sentence with its moments and pictures.

    Attributes:
        sentence (str): The sentence.
        moments (list): [start, end] in seconds, best first.
        scores (list[float]): One per moment.
        present (bool): False if the model holds that this does not happen in the video.
        truth (tuple | None): True start and end, of an example.
        curve (np.ndarray | None): (K,), the score over time.
        moment_map (np.ndarray | None): (H, W, 3) uint8, the heat map.
    """

    sentence: str
    moments: list
    scores: list[float]
    present: bool = True
    truth: tuple | None = None
    curve: np.ndarray | None = None
    moment_map: np.ndarray | None = None

    def map_png(self) -> bytes:
        """The heat map as a PNG file's contents."""
        from matplotlib.image import imsave

        file = io.BytesIO()
        imsave(file, np.ascontiguousarray(self.moment_map), format='png')
        return file.getvalue()
