"""One line that says how far a long job is."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """A rich progress bar behind a plain callback; a context manager.

    Where the output is no terminal it prints a line at each tenth instead.

    Args:
        title (str): What is being done.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(title, total=None)
        self._said = -1

    def __enter__(self) -> 'ProgressBar':
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are finished.

        The bar starts here, so that worker processes fork before its thread exists.
        """
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, completed=done, total=total)
        elif (tenth := 10 * done // max(total, 1)) > self._said:
            self._said = tenth
            self._console.print(f'{self.title}: {done} of {total}')
