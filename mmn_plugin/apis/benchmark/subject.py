"""Something whose time is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Subject:
    """One row of a benchmark.

    Attributes:
        name (str): What is run.
        run (Callable[[], object]): Does it once.
        group (str): Rows of a group are compared with the group's first. Defaults to ''.
        videos (int): Videos that one run works through. Defaults to 0: not said.
        sentences (int): Sentences likewise. Defaults to 0.
        about (dict): Further figures, as they go into the report. Defaults to none.
        seconds (list[float]): One per repeat, filled by `interleave`.
    """

    name: str
    run: Callable[[], object]
    group: str = ''
    videos: int = 0
    sentences: int = 0
    about: dict = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
