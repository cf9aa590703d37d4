"""A video after everything that does not depend on a sentence."""
from dataclasses import dataclass

from torch import Tensor


@dataclass
class EncodedVideo:
    """What `GroundingInferencer.encode` makes; any number of sentences can be asked of it.

    Attributes:
        video_id (str): Name for messages and pictures.
        duration (float): Seconds.
        inputs (Tensor): (R, D) pooled features.
        moments (dict[str, Tensor]): Embeddings of all moments, (1, P, J) per joint space.
    """

    video_id: str
    duration: float
    inputs: Tensor
    moments: dict[str, Tensor]
