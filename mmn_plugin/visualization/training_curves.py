"""Curves of a training, from its log."""

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from mmn_plugin.errors import InputError, MissingFileError

from .canvas import GRID, QUIET, RUNS, TEXT, Canvas, text_width


class TrainingLog:
    """All figures of a run, joined over its resumes.

    MMEngine gives every start a folder of its own in the work directory. Where a later start
    repeats steps of an earlier one, the later figures count.

    Args:
        path (str | Path): A work directory, one of its time-stamped folders, or a
            ``scalars.json``.

    Attributes:
        name (str): The work directory's name.
        curves (dict[str, dict[int, float]]): Figure -> step -> value. Steps of training are
            iterations; those of validation are epochs, if training counts them.
        by_epoch (bool): Whether training counts epochs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or holds no figures.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        files = _files(path)
        if not files:
            raise MissingFileError(
                f'{path}: no vis_data/scalars.json below it; give a work '
                'directory of tools/train.py, or a scalars.json'
            )
        self.name = _name(path)
        self.by_epoch = False
        self.curves: dict[str, dict[int, float]] = {}
        for file in files:
            self._add(file)
        if not self.curves:
            raise InputError(f'{path}: no figures have been written yet')

    def _add(self, file: Path) -> None:
        fresh: dict[str, dict[int, float]] = {}
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                step = int(entry['step'])
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f'{file}, line {number}: not a line of scalars as MMEngine '
                    'writes them; a run that was killed may leave half a line at the '
                    'end, which can be deleted'
                ) from None
            self.by_epoch |= 'epoch' in entry
            for key, value in entry.items():
                if key not in ('step', 'iter', 'epoch') and isinstance(value, int | float):
                    fresh.setdefault(key, {})[step] = float(value)
        for key, curve in fresh.items():
            # a start repeats all that came after the checkpoint that it went on from
            kept = {s: v for s, v in self.curves.get(key, {}).items() if s < min(curve)}
            self.curves[key] = kept | curve


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for pattern in ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json'):
        if files := sorted(path.glob(pattern)):
            return files
    return []


def _name(path: Path) -> str:
    """The folder's name; of a file, or of a time-stamped folder, that of the work directory."""
    parts = [part for part in path.resolve().parts if part not in ('vis_data', 'scalars.json')]
    while len(parts) > 1 and parts[-1].replace('_', '').isdigit():
        parts.pop()
    return parts[-1]


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
                raise InputError(f'no run has a figure {pattern!r}; there are {", ".join(there)}')
            self.keys += [key for key in found if key not in self.keys]
        if not self.keys:
            raise InputError(f'no losses and no metrics; there are {", ".join(there)}')

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
            canvas.text(x + 24, y, log.name, 9.5, color=TEXT)
        for i, key in enumerate(self.keys):
            left = MARGIN + LEFT + (i % columns) * wide
            top = MARGIN + legend + TOP + (i // columns) * tall
            canvas.text(left, top - 14, key, 10, weight='bold', color=TEXT)
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
        axes.set_xlabel(unit, fontsize=SMALL, color=QUIET)
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
        axes.yaxis.get_major_locator().set_params(nbins=6)
        axes.tick_params(labelsize=SMALL, colors=QUIET, length=3)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ('left', 'bottom'))
            spine.set_color(QUIET)


def _points(curve: dict[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def _colour(index: int) -> str:
    return RUNS[index % len(RUNS)]


def _matches(key: str, pattern: str) -> bool:
    return key == pattern or (key.count('/') == pattern.count('/') and fnmatchcase(key, pattern))
