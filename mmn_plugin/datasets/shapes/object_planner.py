"""Where each object is at each frame."""

import numpy as np

from .attributes import COLOURS, SHAPES
from .event import Event
from .scene_object import SceneObject


class ObjectPlanner:
    """Lays out the objects of a scene so that they keep out of each other's way where they can.

    Args:
        duration (float): Seconds.
        fps (int): Frames per second.
    """

    MARGIN = 1.15  # radii that a centre keeps from the frame's edge
    CANDIDATES = 10  # ways drawn for an object; the one that overlaps others least is taken

    def __init__(self, duration: float, fps: int) -> None:
        self.duration = duration
        self.times = np.arange(round(duration * fps)) / fps  # (F,)

    def plan(self, rng, events: list[Event]) -> list[SceneObject]:
        """Make the objects that perform the events, and sometimes a bystander.

        Args:
            rng (np.random.Generator): Source of randomness.
            events (list[Event]): Of the whole scene.

        Returns:
            list[SceneObject]: One per look, in random drawing order.
        """
        looks = list(dict.fromkeys(event.look for event in events))
        if rng.random() < 0.5:
            looks.append(self._bystander(rng, looks))
        objects: list[SceneObject] = []
        for i in rng.permutation(len(looks)):
            own = [event for event in events if event.look == looks[i]]
            objects.append(self._place(rng, looks[i], own, objects))
        return objects

    @staticmethod
    def _bystander(rng, looks: list) -> tuple[str, str]:
        """A look that does nothing and shares its colour or its shape with one that does."""
        while True:
            colour, shape = looks[rng.integers(len(looks))]
            if rng.random() < 0.5:
                colour = str(rng.choice(list(COLOURS)))
            else:
                shape = str(rng.choice(SHAPES))
            if (colour, shape) not in looks:
                return colour, shape

    def _place(self, rng, look: tuple, events: list[Event], others: list) -> SceneObject:
        present = self._presence(rng, events)
        best, best_overlap, found = None, np.inf, 0
        while found < self.CANDIDATES:
            way = self._way(rng, events)
            if way is None:
                continue
            found += 1
            overlap = sum(self._overlap(way, present, other) for other in others)
            if overlap < best_overlap:
                best, best_overlap = way, overlap
            if overlap == 0:
                break
        x, y, radius, lit = best
        tint = tuple(int(value) for value in rng.integers(-14, 15, 3))
        return SceneObject(*look, x=x, y=y, radius=radius, present=present, lit=lit, tint=tint)

    def _presence(self, rng, events: list[Event]) -> np.ndarray:
        """From some seconds before the first event to some after the last, often throughout."""
        if not events:
            start = rng.uniform(0, self.duration / 2)
            span = (start, start + rng.uniform(self.duration / 4, self.duration))
        else:
            before, after = rng.uniform(0.75, 6, 2)
            span = (min(e.start for e in events) - before, max(e.end for e in events) + after)
        return (self.times >= span[0]) & (self.times < span[1])

    def _way(self, rng, events: list[Event]):
        """One candidate: (x, y, radius, lit), each (F,); None where the frame is too small."""
        dx, dy, scale = (np.zeros_like(self.times) for _ in range(3))
        lit = np.ones(len(self.times), bool)
        for event in events:
            progress = ((self.times - event.start) / (event.end - event.start)).clip(0, 1)
            self._act(rng, event, progress, dx, dy, scale, lit)
        # scale is in powers of e: its range decides which sizes to start from are possible.
        low, high = np.log(0.085) - scale.min(), np.log(0.19) - scale.max()
        if low > high:
            return None
        radius = np.exp(rng.uniform(low, high) + scale)
        centre = []
        for shift in (dx, dy):
            low = (self.MARGIN * radius - shift).max()
            high = (1 - self.MARGIN * radius - shift).min()
            if low > high:
                return None
            centre.append(rng.uniform(low, high) + shift)
        return centre[0], centre[1], radius, lit

    def _act(self, rng, event: Event, progress, dx, dy, scale, lit) -> None:
        """Add an event's motion to an object's way, in place."""
        seconds = event.end - event.start
        if event.action in ('left', 'right', 'up', 'down'):
            distance = rng.uniform(max(0.3, 0.05 * seconds), 0.6)
            along = dx if event.action in ('left', 'right') else dy
            along += distance * progress * (-1 if event.action in ('left', 'up') else 1)
        elif event.action in ('grow', 'shrink'):
            factor = np.log(rng.uniform(1.7, 2.1))
            scale += factor * progress * (1 if event.action == 'grow' else -1)
        elif event.action == 'loop':
            turns = seconds / rng.uniform(2.2, 3.4) * rng.choice((-1, 1))
            phase = rng.uniform(0, 2 * np.pi)
            angle = phase + 2 * np.pi * turns * progress
            reach = rng.uniform(0.1, 0.15)
            dx += reach * (np.cos(angle) - np.cos(phase))
            dy += reach * (np.sin(angle) - np.sin(phase))
        else:
            inside = (self.times >= event.start) & (self.times < event.end)
            period = rng.uniform(0.75, 1.1)
            lit &= ~(inside & ((self.times - event.start) % period < period / 2))

    @staticmethod
    def _overlap(way, present: np.ndarray, other: SceneObject) -> float:
        x, y, radius, _ = way
        gap = np.hypot(x - other.x, y - other.y) - radius - other.radius
        return float(np.maximum(-gap, 0)[present & other.present].sum())
