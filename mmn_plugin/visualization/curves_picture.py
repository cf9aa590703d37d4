"""Training curves, one panel per figure, one colour per run."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from . import palette
from .canvas import Canvas
from .text_layout import text_width
from .training_log import TrainingLog

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 246, 172
LEFT, GAP, TOP, BELOW, MARGIN, LINE = 56, 12, 30, 44, 16, 20
SMALL = 8.5
DEFAULT_KEYS = ('loss*', '*/R1@*', '*/mIoU', 'tubes/*vIoU*')


class CurvesPicture:
    """Draws the figures of one or several runs.

    Args:
        logs (Sequence[TrainingLog]): The runs.
        keys (Sequence[str]): Names of figures, or patterns with ``*``. Defaults to the losses,
            R@1 and mIoU. A pattern's ``*`` takes no slash, so that groups of a metric
            (``grounding/0-10s/mIoU``) are left out unless asked for.

    Raises:
        ValueError: If no run has a figure that a key asks for; the message lists what there is.
    """

    def __init__(self, logs: Sequence[TrainingLog], keys: Sequence[str] = DEFAULT_KEYS) -> None:
        self.logs = list(logs)
        there = list(dict.fromkeys(key for log in self.logs for key in log.curves))
        self.keys = []
        for pattern in keys:
            found = [key for key in there if _matches(key, pattern)]
            if not found and tuple(keys) != DEFAULT_KEYS:
                raise ValueError(f'no run has a figure {pattern!r}; there are {", ".join(there)}')
            self.keys += [key for key in found if key not in self.keys]
        if not self.keys:
            raise ValueError(f'no losses and no metrics; there are {", ".join(there)}')

    def draw(self) -> np.ndarray:
        """Draw the picture: (H, W, 3) uint8, RGB."""
        columns = min(COLUMNS, len(self.keys))
        rows = -(-len(self.keys) // columns)
        wide, tall = LEFT + PANEL_WIDTH + GAP, TOP + PANEL_HEIGHT + BELOW
        width = columns * wide + 2 * MARGIN
        places, legend = self._legend_places(width)
        canvas = Canvas(width, 2 * MARGIN + legend + rows * tall)
        for i, (log, (x, y)) in enumerate(zip(self.logs, places, strict=True)):
            canvas.rectangle(x, y - 2, 18, 4, color=_colour(i))
            canvas.text(x + 24, y, log.name, 9.5, color=palette.TEXT)
        for i, key in enumerate(self.keys):
            left = MARGIN + LEFT + (i % columns) * wide
            top = MARGIN + legend + TOP + (i // columns) * tall
            canvas.text(left, top - 14, key, 10, weight='bold', color=palette.TEXT)
            self._draw_panel(canvas.inner_axes(left, top, PANEL_WIDTH, PANEL_HEIGHT), key)
        return canvas.to_array()

    def _legend_places(self, width: int) -> tuple[list[tuple[float, float]], int]:
        """Where each run's name goes, line by line, and the height of all lines."""
        places, x, line = [], float(MARGIN), 0
        for log in self.logs:
            room = 24 + text_width(log.name, 9.5) + 26
            if places and x + room > width - MARGIN:
                x, line = float(MARGIN), line + 1
            places.append((x, MARGIN + LINE * (line + 0.5)))
            x += room
        return places, LINE * (line + 1)

    def _draw_panel(self, axes, key: str) -> None:
        for i, log in enumerate(self.logs):
            steps, values = _points(log.curves.get(key, {}))
            axes.plot(
                steps,
                values,
                color=_colour(i),
                linewidth=1.6,
                marker='o' if len(steps) < 3 else None,
                markersize=4,
            )
        unit = 'epoch' if '/' in key and any(log.by_epoch for log in self.logs) else 'iteration'
        axes.set_xlabel(unit, fontsize=SMALL, color=palette.QUIET)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.yaxis.get_major_locator().set_params(nbins=6)
        axes.tick_params(labelsize=SMALL, colors=palette.QUIET, length=3)
        axes.grid(color=palette.GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ('left', 'bottom'))
            spine.set_color(palette.QUIET)


def _points(curve: dict[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def _colour(index: int) -> str:
    return palette.RUNS[index % len(palette.RUNS)]


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or (key.count('/') == pattern.count('/') and fnmatchcase(key, pattern))
