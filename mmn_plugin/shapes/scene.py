"""Scenes of moving shapes, and how they are drawn at random."""

import itertools
from dataclasses import dataclass

import numpy as np

from .sentences import say

Combination = tuple[str, str, str]  # color, shape, action

# RGB of each color. All are saturated and brighter than any background.
COLORS = {
    'red': (228, 62, 58),
    'yellow': (232, 208, 58),
    'green': (62, 196, 72),
    'cyan': (66, 208, 216),
    'blue': (76, 104, 236),
    'purple': (208, 76, 214),
}

SHAPES = ('circle', 'square', 'triangle', 'diamond', 'cross')

ACTIONS = ('left', 'right', 'up', 'down', 'grow', 'shrink', 'blink', 'loop')

DURATION = 24.0  # seconds of a video
FPS = 8

# One in this many combinations is held out of training.
HELD_OUT_MODULUS = 8


def held_out_combinations(seed: int) -> set[Combination]:
    """Combinations of (color, shape, action) that no training video shows.

    The triples lie on a diagonal of the color x shape x action box, so that training still shows
    every pair of attributes: what is new at test time is the combination alone.

    Args:
        seed (int): The corpus' seed; it chooses the diagonal.

    Returns:
        set[tuple[str, str, str]]: One eighth of the 240 triples.
    """
    indexed = itertools.product(enumerate(COLORS), enumerate(SHAPES), enumerate(ACTIONS))
    return {
        (color, shape, action)
        for (c, color), (s, shape), (a, action) in indexed
        if (c + s + a) % HELD_OUT_MODULUS == seed % HELD_OUT_MODULUS
    }


@dataclass(frozen=True)
class Event:
    """An object does something for a while.

    Attributes:
        color (str): Key of ``COLORS``.
        shape (str): One of ``SHAPES``.
        action (str): One of ``ACTIONS``.
        start (float): Seconds.
        end (float): Seconds, > ``start``.
    """

    color: str
    shape: str
    action: str
    start: float
    end: float

    @property
    def combination(self) -> Combination:
        """(color, shape, action)."""
        return self.color, self.shape, self.action

    @property
    def look(self) -> tuple[str, str]:
        """(color, shape): what the object looks like, whatever it does."""
        return self.color, self.shape


# Half-width to the left and right, height above and below the center, in radii.
EXTENTS = {
    'circle': (0.95, 0.95, 0.95),
    'square': (0.85, 0.85, 0.85),
    'triangle': (1.09, 1.26, 0.63),
    'diamond': (1.13, 1.13, 1.13),
    'cross': (1.0, 1.0, 1.0),
}


@dataclass
class SceneObject:
    """A colored shape with its state at each frame, in units of the frame's side.

    Attributes:
        color (str): Key of ``COLORS``.
        shape (str): One of ``SHAPES``.
        x (np.ndarray): (F,) center, 0 = left edge, 1 = right edge.
        y (np.ndarray): (F,) center, 0 = top edge, 1 = bottom edge.
        radius (np.ndarray): (F,) size.
        present (np.ndarray): (F,) bool; whether the object is in the scene.
        lit (np.ndarray): (F,) bool; False while a blinking object is dark. It is present then.
        tint (tuple): Deviation of this object's RGB from its color's.
    """

    color: str
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

    @property
    def asked(self) -> list[Combination]:
        """What each sentence is about."""
        return [event.combination for event in self.events]

    @property
    def kinds(self) -> list[str]:
        """How often each sentence is true of the scene."""
        return ['once'] * len(self.sentences)

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
        return [
            next(
                place
                for place, item in enumerate(self.objects)
                if (item.color, item.shape) == event.look
                and item.present[round(event.start * self.fps)]
            )
            for event in self.events
        ]


class ObjectPlanner:
    """Lays out the objects of a scene so that they keep out of each other's way where they can."""

    MARGIN = 1.15  # radii that a center keeps from the frame's edge
    CANDIDATES = 10  # ways drawn for an object; the one that overlaps others least is taken

    def __init__(self) -> None:
        self.times = np.arange(round(DURATION * FPS)) / FPS  # (F,)

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
            present = self._presence(rng, own)
            objects.append(self._place(rng, looks[i], own, present, objects))
        return objects

    @staticmethod
    def _bystander(rng, looks: list) -> tuple[str, str]:
        """A look that does nothing and shares its color or its shape with one that does."""
        while True:
            color, shape = looks[rng.integers(len(looks))]
            if rng.random() < 0.5:
                color = str(rng.choice(list(COLORS)))
            else:
                shape = str(rng.choice(SHAPES))
            if (color, shape) not in looks:
                return color, shape

    def _place(
        self, rng, look: tuple, events: list[Event], present: np.ndarray, others: list
    ) -> SceneObject:
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
            start = rng.uniform(0, DURATION / 2)
            span = (start, start + rng.uniform(DURATION / 4, DURATION))
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
        center = []
        for shift in (dx, dy):
            low = (self.MARGIN * radius - shift).max()
            high = (1 - self.MARGIN * radius - shift).min()
            if low > high:
                return None
            center.append(rng.uniform(low, high) + shift)
        return center[0], center[1], radius, lit

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


class SceneSampler:
    """Draws scenes in which no single word finds the moment.

    A scene has three or four events. Either two attributes take two values each and the third is
    shared by all ("square"), or one event has a neighbor for every attribute that differs from it
    in that attribute alone ("star"). So a distractor shares all but one attribute with what is
    asked for. Two events may overlap in time.

    Args:
        seed (int): The corpus' seed. Default: 0.
    """

    EVENT_FRAMES = (28, 60)  # shortest and longest event
    DRAWN_AT_ONCE = 1  # ways to lay the events out in time; the first that fits is taken
    # Two events that overlap more than this would make one answer right for both.
    MAX_EVENT_IOU = 0.2
    # An object rests at least so long (seconds) between two of its events.
    REST = 0.75
    # Share of evaluation scenes that are built around a combination held out of training.
    HELD_OUT_SHARE = 0.4

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.held_out = held_out_combinations(seed)
        self._planner = ObjectPlanner()

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
        sentences = [say(rng, event) for event in events]
        top, bottom = (int(value) for value in rng.integers(24, 72, 2))
        return Scene(
            video_id=video_id,
            duration=DURATION,
            fps=FPS,
            objects=self._planner.plan(rng, events),
            events=events,
            sentences=sentences,
            background=(top, bottom),
        )

    def _combinations(self, rng, training: bool) -> list[Combination]:
        while True:
            center = tuple(str(rng.choice(values)) for values in (list(COLORS), SHAPES, ACTIONS))
            if not training and rng.random() < self.HELD_OUT_SHARE:
                center = sorted(self.held_out)[rng.integers(len(self.held_out))]
            other = tuple(
                str(rng.choice([v for v in values if v != own]))
                for values, own in zip((list(COLORS), SHAPES, ACTIONS), center, strict=True)
            )
            if rng.random() < 0.5:
                changes = [(), (0,), (1,), (2,)]
            else:
                shared = int(rng.integers(3))
                first, second = (i for i in range(3) if i != shared)
                changes = [(), (second,), (first,), (first, second)]
                if rng.random() >= 0.75:  # three events; the center always stays
                    changes.pop()
            triples = [
                tuple(other[i] if i in change else center[i] for i in range(3))
                for change in changes
            ]
            if not training or self.held_out.isdisjoint(triples):
                return [triples[i] for i in rng.permutation(len(triples))]

    def _place_in_time(self, rng, triples: list) -> list[Event]:
        """Random starts and lengths; whole frames, so that annotation and picture agree."""
        low, high = self.EVENT_FRAMES
        shape, total = (self.DRAWN_AT_ONCE, len(triples)), round(DURATION * FPS)
        while True:
            lengths = rng.integers(low, high + 1, shape)
            starts = rng.integers(0, total - lengths + 1)
            fits = self._compatible(triples, starts, starts + lengths)
            if fits.any():
                break
        starts, lengths = (values[fits.argmax()] for values in (starts, lengths))
        order = np.argsort(starts, kind='stable')
        return [
            Event(
                *triples[i],
                start=float(starts[i] / FPS),
                end=float((starts[i] + lengths[i]) / FPS),
            )
            for i in order
        ]

    def _compatible(self, triples: list, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Whether events can lie so: (n,) bool, of starts and ends (n, events) in frames."""
        inside = np.minimum(ends[:, :, None], ends[:, None]) - np.maximum(
            starts[:, :, None], starts[:, None]
        )  # (n, events, events)
        hull = np.maximum(ends[:, :, None], ends[:, None]) - np.minimum(
            starts[:, :, None], starts[:, None]
        )
        same = np.array([[a[:2] == b[:2] for b in triples] for a in triples])
        most = np.where(same, -self.REST * FPS, self.MAX_EVENT_IOU * hull)
        pairs = np.triu(np.ones_like(same), 1)
        at_once = (starts[:, :, None] <= starts[:, None]) & (starts[:, None] < ends[:, :, None])
        apart = (inside <= most) | ~pairs
        return apart.all((1, 2)) & (at_once.sum(1).max(1) <= 2)
