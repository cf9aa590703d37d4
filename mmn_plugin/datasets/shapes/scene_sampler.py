"""From a seed to a scene."""

import numpy as np

from .attributes import ACTIONS, COLOURS, SHAPES, held_out_combinations
from .event import Event
from .object_planner import ObjectPlanner
from .scene import Scene
from .sentence_grammar import SentenceGrammar


class SceneSampler:
    """Draws scenes in which no single word finds the moment.

    A scene has three or four events. Either two attributes take two values each and the third is
    shared by all ("square"), or one event has a neighbour for every attribute that differs from it
    in that attribute alone ("star"). So a distractor shares all but one attribute with what is
    asked for. Two events may overlap in time.

    Args:
        seed (int): The corpus' seed. Default: 0.
        duration (float): Seconds. Default: 24.
        fps (int): Frames per second. Default: 8.
        event_seconds (tuple[float, float]): Shortest and longest event. Default: (3.5, 7.5).
    """

    # Two events that overlap more than this would make one answer right for both.
    MAX_EVENT_IOU = 0.2
    # An object rests at least so long (seconds) between two of its events.
    REST = 0.75
    # Share of evaluation scenes that are built around a combination held out of training.
    HELD_OUT_SHARE = 0.4

    def __init__(
        self,
        seed: int = 0,
        duration: float = 24.0,
        fps: int = 8,
        event_seconds: tuple[float, float] = (3.5, 7.5),
    ) -> None:
        self.seed = seed
        self.duration = duration
        self.fps = fps
        self.event_seconds = event_seconds
        self.held_out = held_out_combinations(seed)
        self._held_out_list = sorted(self.held_out)
        self._grammar = SentenceGrammar()
        self._planner = ObjectPlanner(duration, fps)

    def sample(self, index: int, video_id: str, training: bool) -> Scene:
        """Draw the scene of a video.

        Args:
            index (int): The video's number in the corpus; with the corpus' seed it is the seed of
                everything in the scene.
            video_id (str): Name of the video.
            training (bool): Whether held-out combinations are to be avoided.

        Returns:
            Scene: The same one for the same arguments.
        """
        rng = np.random.default_rng([self.seed, index])
        events = self._place_in_time(rng, self._combinations(rng, training))
        sentences = [self._grammar.sentence(rng, event) for event in events]
        top, bottom = (int(value) for value in rng.integers(24, 72, 2))
        return Scene(
            video_id=video_id,
            duration=self.duration,
            fps=self.fps,
            objects=self._planner.plan(rng, events),
            events=events,
            sentences=sentences,
            background=(top, bottom),
        )

    def _combinations(self, rng, training: bool) -> list[tuple[str, str, str]]:
        while True:
            centre = tuple(str(rng.choice(values)) for values in (list(COLOURS), SHAPES, ACTIONS))
            if not training and rng.random() < self.HELD_OUT_SHARE:
                centre = self._held_out_list[rng.integers(len(self._held_out_list))]
            other = tuple(
                str(rng.choice([v for v in values if v != own]))
                for values, own in zip((list(COLOURS), SHAPES, ACTIONS), centre, strict=True)
            )
            triples = (
                self._star(centre, other)
                if rng.random() < 0.5
                else self._square(rng, centre, other)
            )
            if not training or self.held_out.isdisjoint(triples):
                return [triples[i] for i in rng.permutation(len(triples))]

    @staticmethod
    def _star(centre: tuple, other: tuple) -> list[tuple[str, str, str]]:
        (c, s, a), (c2, s2, a2) = centre, other
        return [(c, s, a), (c2, s, a), (c, s2, a), (c, s, a2)]

    @staticmethod
    def _square(rng, centre: tuple, other: tuple) -> list[tuple[str, str, str]]:
        shared = int(rng.integers(3))
        first, second = (i for i in range(3) if i != shared)
        triples = []
        for pick in ((0, 0), (0, 1), (1, 0), (1, 1)):
            triple = list(centre)
            triple[first] = (centre, other)[pick[0]][first]
            triple[second] = (centre, other)[pick[1]][second]
            triples.append(tuple(triple))
        # Three events in a quarter of these scenes; the centre always stays.
        return triples if rng.random() < 0.75 else triples[:3]

    def _place_in_time(self, rng, triples: list) -> list[Event]:
        """Random starts and lengths; whole frames, so that annotation and picture agree."""
        low, high = (round(seconds * self.fps) for seconds in self.event_seconds)
        total = round(self.duration * self.fps)
        while True:
            lengths = rng.integers(low, high + 1, len(triples))
            starts = np.array([rng.integers(0, total - length + 1) for length in lengths])
            if self._compatible(triples, starts, starts + lengths):
                break
        order = np.argsort(starts, kind='stable')
        return [
            Event(
                *triples[i],
                start=float(starts[i] / self.fps),
                end=float((starts[i] + lengths[i]) / self.fps),
            )
            for i in order
        ]

    def _compatible(self, triples: list, starts: np.ndarray, ends: np.ndarray) -> bool:
        inside = np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts)
        hull = np.maximum(ends[:, None], ends) - np.minimum(starts[:, None], starts)
        pairs = np.triu(np.ones_like(inside, bool), 1)
        if (inside[pairs] > self.MAX_EVENT_IOU * hull[pairs]).any():
            return False
        same = np.array([[a[:2] == b[:2] for b in triples] for a in triples])
        if (inside[pairs & same] > -self.REST * self.fps).any():
            return False
        at_once = ((starts[:, None] <= starts) & (starts < ends[:, None])).sum(0)
        return bool(at_once.max() <= 2)
