"""A video after everything that does not depend on a sentence."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class EncodedVideo:
    """What `GroundingInferencer.encode` makes; any number of sentences can be asked of it.

    Attributes:
        video_id (str): Name for messages and pictures.
        duration (float): Seconds.
        moments (dict[str, Tensor]): Unit embeddings of all its moments, (U, J) per joint space; of
            a moment that several windows saw, their mean.
        spans (Tensor): (U, 2) their seconds. U is the grid's P unless the video was looked at in
            several windows.
        trust (Tensor): (U,) factor on their scores, see `WindowPlan`.
        num_windows (int): 1, or the overlapping windows that a long video was looked at in.
        length_in_windows (float): Seconds of the video over those of a window; 1 if it was looked
            at whole.
        score_power (float): Weight of the contrastive score in ranking.
    """

    video_id: str
    duration: float
    moments: dict[str, Tensor]
    spans: Tensor
    trust: Tensor
    num_windows: int
    length_in_windows: float
    score_power: float
