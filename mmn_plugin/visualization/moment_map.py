"""Pictures of moment maps."""

import itertools
import math

import numpy as np
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.structures import MomentGrid, temporal_iou

from .canvas import (
    ABSENT,
    HEAT,
    QUIET,
    SMALL,
    TEXT,
    TRUTH,
    new_figure,
    plain,
    style_axes,
    tick_text,
    time_ticks,
    time_unit,
    to_array,
    wrap,
)

WIDTH, HEIGHT, LINE = 664, 552, 19  # pixels; the height is without the lines of the title
RADIUS = 9  # of a peak's number, in pixels


def draw_moment_map(
    grid: MomentGrid,
    values,
    ground_truth=None,
    peaks=None,
    *,
    duration: float,
    title: str = '',
    label: str = 'score',
    unit: str | None = None,
) -> np.ndarray:
    """Draw the value of every moment at (end, start), start pointing down as in 2D-TAN.

    A cell's middle lies at the start and end, in seconds, of its moment. Cells of moments that do
    not exist are gray.

    Args:
        grid (MomentGrid): Which moments exist.
        values (Tensor | np.ndarray): (P,), one per moment.
        ground_truth (Tensor | np.ndarray | None): (2,) or (k, 2) seconds; the cell with the
            largest IoU with each is framed, and with k = 0 the legend says that the sentence does
            not occur. Defaults to None: unknown, as is NaN.
        peaks (Tensor | np.ndarray | None): (n, 2) seconds, best first; numbered. Defaults to
            None.
        duration (float): Seconds of the video.
        title (str): Heading, such as the sentence. Defaults to none.
        label (str): What the values are, beside the color bar. Defaults to ``'score'``.
        unit (str, optional): What ``duration`` and all moments count, such as ``'boxes'``.
            Defaults to None: seconds.

    Returns:
        np.ndarray: (H, 664, 3) uint8, RGB.

    Raises:
        ValueError: If there is not one value per moment.
    """
    from matplotlib import colormaps

    values = torch.as_tensor(values).detach().float().cpu()  # (P,)
    if values.shape != (grid.num_moments,):
        raise InputError(
            f'a map of {grid.num_moments} moments needs as many values, not {tuple(values.shape)}'
        )
    lines = wrap(title, WIDTH - 40, 10.5, 'bold') if title.strip() else []
    figure = new_figure(WIDTH, HEIGHT + LINE * len(lines))
    if lines:
        style = plain(ha='left', size=10.5, weight='bold')
        figure.suptitle('\n'.join(lines), x=20 / WIDTH, **style)
    axes = figure.subplots()
    half = duration / grid.num_clips / 2
    # the cell (i, j) ends after clip j and starts before clip i: its middle lies there
    image = axes.imshow(
        grid.to_map(values, fill=math.nan).numpy(),
        cmap=colormaps[HEAT].with_extremes(bad=ABSENT),
        extent=(half, duration + half, duration - half, -half),
        aspect='auto',
        interpolation='nearest',
    )
    bar = figure.colorbar(image, ax=axes, aspect=34, pad=0.03)
    bar.set_label(label, fontsize=SMALL, color=QUIET)
    bar.ax.tick_params(labelsize=SMALL, colors=QUIET, length=3)
    bar.outline.set_visible(False)
    _label_axes(axes, float(duration), unit)
    cells, peaks = [_best_cell(grid, duration, m) for m in _moments(ground_truth)], _moments(peaks)
    figure.draw_without_rendering()  # lays out
    figure.set_layout_engine('none')
    side = axes.bbox.width / grid.num_clips  # pixels of a cell
    _frame(axes, cells, max(side, 12))
    # in a large cell the number fits into the frame
    _number(axes, peaks, avoid=cells if side < 2 * RADIUS + 6 else [])
    absent = ground_truth is not None and not len(ground_truth)
    _draw_legend(axes, bool(cells), bool(len(peaks)), absent)
    return to_array(figure)


def _moments(moments) -> np.ndarray:
    """(k, 2) float32, without NaN, from None, (2,) or (k, 2)."""
    moments = np.asarray([] if moments is None else moments, np.float32).reshape(-1, 2)
    return moments[~np.isnan(moments).any(1)]


def _best_cell(grid: MomentGrid, duration: float, moment: np.ndarray) -> np.ndarray:
    """Start and end of the moment of the grid with the largest IoU, (2,) seconds."""
    spans = grid.spans(duration)  # (P, 2)
    return spans[temporal_iou(torch.as_tensor(moment), spans).argmax()].numpy()


def _label_axes(axes, duration: float, unit: str | None) -> None:
    ticks, (left, right), (bottom, top) = time_ticks(duration), axes.get_xlim(), axes.get_ylim()
    axes.set_xticks([t for t in ticks if left <= t <= right])
    axes.set_yticks([t for t in ticks if top <= t <= bottom])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda t, _: f'{t:g}' if unit else tick_text(t, duration))
    shown = unit or time_unit(duration)
    style_axes(axes, f'end of the moment ({shown})', f'start of the moment ({shown})')
    axes.spines[:].set_visible(False)


def _frame(axes, cells: list[np.ndarray], side: float) -> None:
    """Frame the cells that are nearest to the ground truth; ``side`` in pixels."""
    for color, width in (('white', 4.5), (TRUTH, 2.5)):
        for start, end in cells:
            style = dict(markerfacecolor='none', markeredgecolor=color, markeredgewidth=width)
            size = side * 0.72  # points in a pixel at 100 dpi
            axes.plot(end, start, 's', markersize=size, clip_on=False, zorder=3, **style)


# Where a number stands: on the spot, else on rings around it, towards the empty corner first.
AROUND = np.array(
    [(0.0, 0.0)]
    + [
        (pixels * math.cos(angle), pixels * math.sin(angle))
        for pixels in (22, 34, 50)
        for angle in np.radians([225, 180, 270, 135, 315, 0, 90, 45])
    ]
)


def _number(axes, peaks: np.ndarray, avoid: list[np.ndarray]) -> None:
    """Number the peaks; one that would cover an earlier one, or a frame, is led aside."""
    taken = [axes.transData.transform(cell[::-1]) for cell in avoid]
    line = dict(arrowstyle='-', color=TEXT, linewidth=0.9, shrinkA=0, shrinkB=0)
    for rank, (start, end) in enumerate(peaks, 1):
        places = axes.transData.transform((end, start)) + AROUND
        free = [all(math.dist(p, other) > 2 * RADIUS for other in taken) for p in places]
        chosen = free.index(True) if any(free) else 0
        taken.append(places[chosen])
        axes.annotate(
            str(rank),
            (end, start),
            places[chosen],
            textcoords='figure pixels',
            arrowprops=line if chosen else None,
            bbox=dict(boxstyle='circle,pad=0.35', facecolor='white', edgecolor=TEXT),
            annotation_clip=False,
            zorder=5 + rank / 100,
            **plain(size=8, ha='center', va='center'),
        )


def _draw_legend(axes, truth: bool, peaks: bool, absent: bool) -> None:
    """Explain the marks, in the corner where a moment would end before it starts."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    frame = dict(markersize=8, markerfacecolor='none', markeredgecolor=TRUTH, markeredgewidth=2.5)
    circle = dict(markersize=9, color='white', markeredgecolor=TEXT)
    entries = [
        Line2D([], [], marker='s', linestyle='none', label='ground truth', **frame),
        Line2D([], [], linestyle='none', label='does not occur (truth)'),
        Line2D([], [], marker='o', linestyle='none', label='predictions by rank', **circle),
        Patch(color=ABSENT, label='no such moment'),
    ]
    style = dict(framealpha=1, edgecolor='white', labelcolor=TEXT, borderpad=0.7)
    handles = list(itertools.compress(entries, (truth, absent, peaks, True)))
    legend = axes.legend(handles=handles, loc='lower left', fontsize=SMALL, **style)
    legend.set_zorder(10)
