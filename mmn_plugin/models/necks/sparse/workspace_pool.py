"""Workspaces for any number of threads."""

from collections.abc import Iterator
from contextlib import contextmanager

from .workspace import Workspace


class WorkspacePool:
    """Lends a workspace to one convolution at a time; there are as many as ran at the same time."""

    def __init__(self):
        self._free: list[Workspace] = []

    @contextmanager
    def borrow(self) -> Iterator[Workspace]:
        """A workspace that nobody else has; it is given up where an error interrupts its use."""
        try:
            workspace = self._free.pop()  # a list's pop and append are atomic
        except IndexError:
            workspace = Workspace()
        yield workspace
        self._free.append(workspace)

    def clear(self) -> None:
        """Give the memory of all that are not lent back."""
        self._free.clear()
