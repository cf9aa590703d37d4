"""Everything that one video of the corpus shows and says."""

from dataclasses import dataclass

from .event import Event
from .scene_object import SceneObject


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
