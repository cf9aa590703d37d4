"""Scores over a video, and figures over a training, as curves."""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.files import printable
from mmn_plugin.structures import GroundingDataSample

from .canvas import (
    GRID,
    QUIET,
    RUNS,
    SMALL,
    TRUTH,
    fade,
    new_figure,
    plain,
    resize,
    style_axes,
    text_width,
    tick_text,
    time_ticks,
    time_unit,
    to_array,
    wrap,
)

WIDTH, PANEL, LINE = 720, 170, 19  # of a picture of scores; a panel with its axis, a line of text


def draw_score_curves(sample: GroundingDataSample, curves: Mapping[str, Tensor]) -> np.ndarray:
    """Draw scores over time, a panel for each sentence, the truth behind them where it is known.

    Args:
        sample (GroundingDataSample): Sentences, duration and perhaps ground truth.
        curves (Mapping[str, Tensor]): Name -> (s, N) scores of N clips of equal length, such as
            those before and after refinement.

    Returns:
        np.ndarray: (H, 720, 3) uint8, RGB.

    Raises:
        ValueError: If there is not one for each sentence.
    """
    for name, values in curves.items():
        if len(values) != len(sample.sentences):
            raise InputError(
                f'the curves {name!r} of video {sample.video_id!r} are '
                f'{len(values)} for {len(sample.sentences)} sentences'
            )
    from matplotlib.patches import Patch

    titles = [wrap(f'“{text}”', WIDTH - 90, 10.5, 'bold') for text in sample.sentences]
    heights = [LINE * len(title) + PANEL for title in titles]
    figure = new_figure(WIDTH, sum(heights) + 12)
    panels = figure.subplots(len(titles), 1, squeeze=False, height_ratios=heights)[:, 0]
    duration, known = sample.duration, 'gt_instances' in sample
    ticks = time_ticks(duration)
    for index, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        axes.set_title('\n'.join(title), loc='left', fontsize=10.5, weight='bold', **plain())
        for color, scores in zip(cycle(RUNS), curves.values()):
            values = torch.as_tensor(scores[index]).detach().float().cpu().numpy()
            middles = (np.arange(len(values)) + 0.5) * duration / len(values)
            _plot(axes, middles, values, color)
        if known:
            _shade(axes, sample.windows[index])
        axes.set_xlim(0, duration)
        axes.set_xticks(ticks, [tick_text(tick, duration) for tick in ticks])
        axes.locator_params(axis='y', nbins=4)
        style_axes(axes, time_unit(duration))
    handles = [*panels[0].lines, *[Patch(color=fade(TRUTH, 0.6), linewidth=0)] * known]
    _add_legend(figure, handles, [*curves, *['truth'] * known], WIDTH)
    return to_array(figure)


def _shade(axes, windows: Tensor) -> None:
    """Shade the true windows (W, 2) of a sentence, or say that there is none."""
    for start, end in windows.tolist():
        axes.axvspan(start, end, color=fade(TRUTH, 0.6), linewidth=0, zorder=0)
    if not len(windows):
        box = dict(facecolor='white', edgecolor='none', alpha=0.85, pad=1.5)
        style = plain(size=SMALL, color=QUIET, va='top', transform=axes.transAxes, bbox=box)
        axes.text(0.01, 0.97, 'does not occur', **style)


def _plot(axes, x, y, color: str) -> None:
    """A line, or points where there are too few for one to be seen."""
    axes.plot(x, y, color=color, linewidth=1.6, marker='o' if len(x) < 3 else None, ms=4)


def _add_legend(figure, handles: Sequence, names: Sequence[str], width: float) -> None:
    """Name what panels show above all panels; the picture gets higher by it."""
    names = [printable(name) for name in names]
    columns = max(1, int(width / (60 + max(text_width(name, 9.5) for name in names))))
    resize(figure, width, figure.bbox.height + LINE * -(-len(names) // columns))
    legend = figure.legend(
        handles,
        ['…'] * len(names),  # matplotlib leaves out names that begin with an underscore
        loc='outside upper left',
        ncols=min(len(names), columns),
        frameon=False,
        fontsize=9.5,
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, **plain())


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


COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 316, 246
DEFAULT_KEYS = ('loss*', '*/R1@*', '*/mIoU', 'tubes/*vIoU*')


def choose_figures(logs: Sequence[TrainingLog], keys: Sequence[str] = DEFAULT_KEYS) -> list[str]:
    """Names of the figures that runs have and keys ask for.

    Args:
        logs (Sequence[TrainingLog]): The runs.
        keys (Sequence[str]): Names of figures, or patterns with ``*``. Defaults to the losses,
            R@1 and mIoU. A pattern's ``*`` takes no slash, so that groups of a metric
            (``grounding/0-10s/mIoU``) are left out unless asked for.

    Raises:
        ValueError: If no run has a figure that a key asks for; the message lists what there is.
    """
    there = list(dict.fromkeys(key for log in logs for key in log.curves))
    chosen = []
    for pattern in keys:
        found = [
            key
            for key in there
            if key == pattern
            or (key.count('/') == pattern.count('/') and fnmatchcase(key, pattern))
        ]
        if not found and tuple(keys) != DEFAULT_KEYS:
            raise InputError(f'no run has a figure {pattern!r}; there are {", ".join(there)}')
        chosen += [key for key in found if key not in chosen]
    if not chosen:
        raise InputError(f'no losses and no metrics; there are {", ".join(there)}')
    return chosen


def draw_training_curves(
    logs: Sequence[TrainingLog], keys: Sequence[str] = DEFAULT_KEYS
) -> np.ndarray:
    """Draw the figures of one or several runs, a panel for each figure.

    Args: as of `choose_figures`.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB.

    Raises:
        ValueError: As `choose_figures`.
    """
    keys = choose_figures(logs, keys)
    columns = min(COLUMNS, len(keys))
    rows = -(-len(keys) // columns)
    width = columns * PANEL_WIDTH
    figure = new_figure(width, rows * PANEL_HEIGHT + 12)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    by_epoch = any(log.by_epoch for log in logs)
    for axes, key in zip(panels, keys, strict=False):
        for color, log in zip(cycle(RUNS), logs):
            curve = sorted(log.curves.get(key, {}).items())
            _plot(axes, [step for step, _ in curve], [value for _, value in curve], color)
        axes.set_title(key, loc='left', fontsize=10, weight='bold', **plain())
        axes.locator_params(axis='x', nbins=6, integer=True)
        axes.locator_params(axis='y', nbins=6)
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        style_axes(axes, 'epoch' if by_epoch and '/' in key else 'iteration')
    _add_legend(figure, panels[0].lines, [log.name for log in logs], width)
    return to_array(figure)
