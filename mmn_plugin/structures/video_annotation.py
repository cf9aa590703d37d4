"""What the datasets annotate."""

from dataclasses import dataclass


@dataclass
class VideoAnnotation:
    """The usable sentences of one video.

    Attributes:
        video_id (str): Key of the video in the annotation file and the feature files.
        duration (float): Seconds.
        moments (list[tuple[float, float]] | None): Start and end of each sentence's moment, in
            seconds, within [0, ``duration``]; None where they were not read.
        sentences (list[str]): Exactly as annotated.
        sentence_index (list[int]): The sentence's place in the file's own list, which counts the
            dropped ones too.
    """

    video_id: str
    duration: float
    moments: list[tuple[float, float]] | None
    sentences: list[str]
    sentence_index: list[int]
