"""Pictures of moment maps."""

import math

import numpy as np

from mmn_plugin.errors import InputError
from mmn_plugin.structures import MomentGrid, temporal_iou

from .canvas import ABSENT, HEAT, QUIET, TEXT, TRUTH, Canvas, tick_text, time_ticks, time_unit, wrap

WIDTH, MAP, LEFT, BELOW = 664, 480, 96, 62
LINE, SMALL, SIZE = 19, 9, 10.5
RADIUS = 9  # of a peak's number, in pixels


class MomentMapPicture:
    """Draws the value of every moment at (end, start), start pointing down as in 2D-TAN.

    A cell's middle lies at the start and end, in seconds, of its moment. Cells of moments that do
    not exist are grey.

    Args:
        grid (MomentGrid): Which moments exist.
        values (np.ndarray): (P,), a value per moment.
        duration (float): Seconds of the video.
        truth (np.ndarray | None): (2,), or (k, 2) for several; seconds. The cell with the largest
            IoU is framed. Defaults to None.
        peaks (np.ndarray | None): (n, 2) seconds, best first; numbered. Defaults to None.
        title (str): Heading, such as the sentence. Defaults to none.
        label (str): What the values are. Defaults to ``'score'``.
        unit (str | None): What ``duration`` counts; None: seconds. Defaults to None.
    """

    def __init__(
        self,
        grid: MomentGrid,
        values,
        duration: float,
        truth=None,
        peaks=None,
        title: str = '',
        label: str = 'score',
        unit: str | None = None,
    ) -> None:
        import torch

        self.grid, self.duration, self.label = grid, float(duration), label
        self.unit = unit
        values = torch.as_tensor(values).detach().float().cpu()  # (P,)
        if values.shape != (grid.num_moments,):
            raise InputError(
                f'a map of {grid.num_moments} moments needs as many values, not '
                f'{tuple(values.shape)}'
            )
        self.map = grid.to_map(values, fill=math.nan).numpy()  # (N, N)
        self.truth, self.peaks = _moments(truth), _moments(peaks)
        self.title = wrap(title, WIDTH - 40, SIZE, 'bold') if title.strip() else []
        self.pixels = MAP / grid.num_clips  # side of a cell

    def draw(self) -> np.ndarray:
        """Draw the picture: (H, 664, 3) uint8, RGB."""
        top = 20 + LINE * len(self.title) + (6 if self.title else 0)
        canvas = Canvas(WIDTH, top + MAP + BELOW)
        for i, line in enumerate(self.title):
            canvas.text(20, 20 + LINE * (i + 0.5), line, SIZE, weight='bold', color=TEXT)
        axes = canvas.inner_axes(LEFT, top, MAP, MAP)
        image = self._draw_cells(axes)
        self._draw_axes(axes)
        bar = canvas.figure.colorbar(image, cax=canvas.inner_axes(LEFT + MAP + 18, top, 14, MAP))
        bar.ax.tick_params(labelsize=SMALL, colors=QUIET, length=3)
        bar.outline.set_visible(False)
        bar.set_label(self.label, fontsize=SMALL, color=QUIET)
        for moment in self.truth:
            self._frame_truth(axes, moment)
        self._number_peaks(axes)
        self._draw_legend(axes)
        return canvas.to_array()

    def _draw_cells(self, axes):
        from matplotlib import colormaps

        colours = colormaps[HEAT].with_extremes(bad=ABSENT)
        half, end = self.duration / self.grid.num_clips / 2, self.duration
        # the cell (i, j) ends after clip j and starts before clip i: its middle lies there
        extent = (half, end + half, end - half, -half)
        return axes.imshow(
            self.map, cmap=colours, extent=extent, aspect='auto', interpolation='nearest'
        )

    def _draw_axes(self, axes) -> None:
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        ticks = time_ticks(self.duration)
        axes.set_xticks([t for t in ticks if left <= t <= right])
        axes.set_yticks([t for t in ticks if top <= t <= bottom])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(
                lambda t, _: f'{t:g}' if self.unit else tick_text(t, self.duration)
            )
        unit = self.unit or time_unit(self.duration)
        axes.set_xlabel(f'end of the moment ({unit})', fontsize=SMALL, color=QUIET)
        axes.set_ylabel(f'start of the moment ({unit})', fontsize=SMALL, color=QUIET)
        axes.yaxis.set_label_coords(-(66 if unit.startswith('h') else 48) / MAP, 0.5)
        axes.tick_params(labelsize=SMALL, colors=QUIET, length=3)
        for spine in axes.spines.values():
            spine.set_visible(False)

    def _best_cell(self, moment: np.ndarray) -> np.ndarray:
        """Start and end of the moment of the grid with the largest IoU, (2,) seconds."""
        import torch

        spans = self.grid.spans(self.duration)  # (P, 2)
        return spans[temporal_iou(torch.as_tensor(moment), spans).argmax()].numpy()

    def _frame_truth(self, axes, moment: np.ndarray) -> None:
        """Frame the cell that is nearest to a ground truth; a tiny cell gets a larger frame."""
        start, end = self._best_cell(moment)
        side = max(self.pixels, 12) * 0.72  # points in a pixel at 100 dpi
        for colour, width in (('white', 4.5), (TRUTH, 2.5)):
            axes.plot(
                [end],
                [start],
                marker='s',
                markersize=side,
                markerfacecolor='none',
                markeredgecolor=colour,
                markeredgewidth=width,
                linestyle='none',
                clip_on=False,
                zorder=3,
            )

    def _number_peaks(self, axes) -> None:
        """Number the peaks; one that would cover an earlier one is led aside."""
        scale, taken = MAP / self.duration, []
        if self.pixels < 2 * RADIUS + 6:  # in a larger cell the number fits into the frame
            cells = [self._best_cell(moment) for moment in self.truth]
            taken = [(end * scale, start * scale) for start, end in cells]
        for rank, (start, end) in enumerate(self.peaks, 1):
            x, y = end * scale, start * scale
            place = next(
                (
                    (px, py)
                    for px, py in _around(x, y)
                    if all(math.hypot(px - a, py - b) >= 2 * RADIUS + 1 for a, b in taken)
                ),
                (x, y),
            )
            taken.append(place)
            px, py = place[0] / scale, place[1] / scale
            if place != (x, y):
                axes.plot(
                    [end, px],
                    [start, py],
                    color=TEXT,
                    linewidth=0.9,
                    zorder=4,
                    clip_on=False,
                )
            axes.plot(
                [px],
                [py],
                marker='o',
                markersize=2 * RADIUS * 0.72,
                color='white',
                markeredgecolor=TEXT,
                markeredgewidth=1,
                zorder=5,
                clip_on=False,
            )
            axes.text(
                px,
                py,
                str(rank),
                fontsize=8,
                ha='center',
                va='center_baseline',
                zorder=6,
                color=TEXT,
            )

    def _draw_legend(self, axes) -> None:
        """Explain the marks, in the corner where a moment would end before it starts."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        entries = [Patch(color=ABSENT, label='no such moment')]
        if len(self.peaks):
            entries.insert(
                0,
                Line2D(
                    [],
                    [],
                    marker='o',
                    linestyle='none',
                    markersize=9,
                    color='white',
                    markeredgecolor=TEXT,
                    label='predictions by rank',
                ),
            )
        if len(self.truth):
            entries.insert(
                0,
                Line2D(
                    [],
                    [],
                    marker='s',
                    linestyle='none',
                    markersize=8,
                    markerfacecolor='none',
                    markeredgecolor=TRUTH,
                    markeredgewidth=2.5,
                    label='ground truth',
                ),
            )
        legend = axes.legend(
            handles=entries,
            loc='lower left',
            fontsize=SMALL,
            framealpha=1,
            edgecolor='white',
            labelcolor=TEXT,
            borderpad=0.7,
        )
        legend.set_zorder(10)


def _around(x: float, y: float):
    """Places for a number: on the spot, else on rings around it, towards the empty corner first."""
    yield x, y
    for distance in (22, 34, 50):
        for degrees in (135, 180, 90, 225, 45, 0, 270, 315):
            angle = math.radians(degrees)
            yield x + distance * math.cos(angle), y + distance * math.sin(angle)


def _moments(moments) -> np.ndarray:
    """(k, 2) float32, without NaN, from None, (2,) or (k, 2)."""
    if moments is None:
        return np.zeros((0, 2), np.float32)
    moments = np.asarray(moments, np.float32).reshape(-1, 2)
    return moments[~np.isnan(moments).any(1)]
