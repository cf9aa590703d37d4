"""One thing that happens in a scene."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """An object does something for a while.

    Attributes:
        colour (str): Key of ``COLOURS``.
        shape (str): One of ``SHAPES``.
        action (str): One of ``ACTIONS``.
        start (float): Seconds.
        end (float): Seconds, > ``start``.
    """

    colour: str
    shape: str
    action: str
    start: float
    end: float

    @property
    def combination(self) -> tuple[str, str, str]:
        """(colour, shape, action)."""
        return self.colour, self.shape, self.action

    @property
    def look(self) -> tuple[str, str]:
        """(colour, shape): what the object looks like, whatever it does."""
        return self.colour, self.shape
