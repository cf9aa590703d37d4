"""Scenes whose events occur once or twice, and sentences about what does not occur in them."""

import itertools
from dataclasses import dataclass

import numpy as np

from .scene import (
    ACTIONS,
    COLORS,
    DURATION,
    FPS,
    SHAPES,
    Combination,
    Event,
    ObjectPlanner,
    Scene,
    SceneObject,
    SceneSampler,
)
from .sentences import say

# Kinds of sentences: by how often they are true, and those that are not by what they are about.
OCCURRENCES = ('once', 'twice')
ABSENCES = ('action', 'color', 'elsewhere', 'untrained')


@dataclass
class WindowsScene(Scene):
    """A scene whose sentences are true of no moment, of one, or of two.

    Attributes:
        about (list[tuple[Combination, str]]): What each sentence is about, and its kind: one of
            ``OCCURRENCES`` or, where the scene has no such event, of ``ABSENCES``.
    """

    about: list[tuple[Combination, str]]

    @property
    def asked(self) -> list[Combination]:
        """What each sentence is about."""
        return [combination for combination, _ in self.about]

    @property
    def kinds(self) -> list[str]:
        """How often each sentence is true of the scene, or what it is about instead."""
        return [kind for _, kind in self.about]

    def annotation(self) -> dict:
        """The video's entry in the annotation format.

        Returns:
            dict: ``duration`` (seconds), ``sentences`` and, of each of them, ``timestamps``:
            [start, end], a list of two of these, or [] where it is not true of the scene.
        """
        timestamps = []
        for combination in self.asked:
            found = [
                [round(event.start, 3), round(event.end, 3)]
                for event in self.events
                if event.combination == combination
            ]
            timestamps.append(found[0] if len(found) == 1 else found)
        return dict(duration=self.duration, timestamps=timestamps, sentences=list(self.sentences))


class AppearancePlanner(ObjectPlanner):
    """Lays out objects that leave before they do again what they have done, and come back.

    Without, an object that grows twice would have to shrink in between, which would be an event.
    """

    AWAY = 0.5  # seconds that an object is away at least

    def plan(self, rng, events: list[Event]) -> list[SceneObject]:
        """Make the objects that perform the events, and sometimes a bystander.

        Args:
            rng (np.random.Generator): Source of randomness.
            events (list[Event]): Of the whole scene, in order of their start.

        Returns:
            list[SceneObject]: One per appearance of a look, in random drawing order; never are
            two of the same look present at once.
        """
        looks = list(dict.fromkeys(event.look for event in events))
        if rng.random() < 0.5:
            looks.append(self._bystander(rng, looks))
        parts = []
        for look in looks:
            appearances = self._appearances([event for event in events if event.look == look])
            present = [self._presence(rng, own) for own in appearances]
            for before, after in itertools.pairwise(range(len(appearances))):
                middle = (appearances[before][-1].end + appearances[after][0].start) / 2
                present[before] &= self.times < middle - self.AWAY / 2
                present[after] &= self.times >= middle + self.AWAY / 2
            parts += [(look, *part) for part in zip(appearances, present, strict=True)]
        objects: list[SceneObject] = []
        for i in rng.permutation(len(parts)):
            objects.append(self._place(rng, *parts[i], objects))
        return objects

    @staticmethod
    def _appearances(events: list[Event]) -> list[list[Event]]:
        """Events of a look, in their order, so that no appearance has the same one twice."""
        parts: list[list[Event]] = [[]]
        for event in events:
            if any(event.combination == other.combination for other in parts[-1]):
                parts.append([])
            parts[-1].append(event)
        return parts


class WindowsSampler(SceneSampler):
    """Draws scenes in which some events happen twice, with sentences about some that do not happen.

    One or two of the three or four combinations of color, shape and action occur at two separate
    times. Beside a sentence of each combination there is one for each of these, of which the scene
    has no event:

    - ``action``: an object of the scene does something else than it does;
    - ``color``: what an object of the scene does, by one of its shape in another color;
    - ``elsewhere``: any other combination that training shows;
    - ``untrained``: a combination that training never shows, in a sentence or in a picture. Only
      validation and test have these; the others are of combinations that training shows.

    Args:
        seed (int): The corpus' seed. Default: 0.
    """

    EVENT_FRAMES = (24, 44)  # shorter than elsewhere: there are up to five
    DRAWN_AT_ONCE = 512  # few of them fit
    REST = 2.0

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._planner = AppearancePlanner()

    def sample(self, index: int, video_id: str, training: bool) -> WindowsScene:
        """Draw the scene of a video; arguments as of `SceneSampler.sample`."""
        rng = np.random.default_rng([self.seed, index])
        present = self._combinations(rng, training)
        repeats = int(rng.integers(1, 6 - len(present)))  # at most five events
        twice = [present[i] for i in rng.choice(len(present), repeats, replace=False)]
        events = self._place_in_time(rng, present + twice)
        asked = [(one, 'twice' if one in twice else 'once') for one in present]
        asked += self._absent(rng, present, training)
        asked = [asked[i] for i in rng.permutation(len(asked))]
        top, bottom = (int(value) for value in rng.integers(24, 72, 2))
        return WindowsScene(
            video_id=video_id,
            duration=DURATION,
            fps=FPS,
            objects=self._planner.plan(rng, events),
            events=events,
            sentences=[say(rng, Event(*one, start=0.0, end=1.0)) for one, _ in asked],
            background=(top, bottom),
            about=asked,
        )

    def _absent(
        self, rng, present: list[Combination], training: bool
    ) -> list[tuple[Combination, str]]:
        """A combination that does not occur for each of ``ABSENCES``, no two of them the same."""
        color, shape, action = present[rng.integers(len(present))]
        choices = dict(
            action=[(color, shape, other) for other in ACTIONS],
            color=[(other, shape, action) for other in COLORS],
            elsewhere=list(itertools.product(COLORS, SHAPES, ACTIONS)),
            untrained=sorted(self.held_out),
        )
        if training:
            del choices['untrained']
        found: list[tuple[Combination, str]] = []
        for kind, triples in choices.items():
            taken = {*present, *(one for one, _ in found)}
            free = [
                triple
                for triple in triples
                if triple not in taken and (triple in self.held_out) == (kind == 'untrained')
            ]
            found.append((free[rng.integers(len(free))], kind))
        return found
