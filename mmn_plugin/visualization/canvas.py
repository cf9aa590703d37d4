"""Figures, their colors, text that fits, and times."""

import math
import textwrap

import numpy as np

from mmn_plugin.files import printable

TRUTH = '#E69F00'  # ground truth: orange
PREDICTION = '#0072B2'  # predictions: blue, fading down the ranks
TEXT = '#222222'
QUIET = '#666666'  # axis labels and what else should not catch the eye
GRID = '#D8D8D8'
TRACK = '#F2F2F2'  # the whole length of the video, behind a bar
ABSENT = '#D0D0D0'  # cells of a moment map that do not exist
HEAT = 'Blues'  # matplotlib's name of the heat map's colors, light to dark
SMALL = 8.5  # points of an axis' labels
RUNS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#000000')


def fade(color: str, amount: float) -> str:
    """Mix a color with white: 0 leaves it, 1 is white."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return '#' + ''.join(f'{round(c + (255 - c) * amount):02X}' for c in channels)


DPI = 100
FONT = 'DejaVu Sans'


def new_figure(width: float, height: float, layout: str | None = 'constrained'):
    """Make a white figure; nothing of pyplot's global state is touched.

    Args:
        width (float): Pixels.
        height (float): Pixels.
        layout (str | None): As of `matplotlib.figure.Figure`. Defaults to ``'constrained'``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI, facecolor='white', layout=layout)
    resize(figure, width, height)
    if layout is not None:
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # inches around each axes
    FigureCanvasAgg(figure)
    return figure


def resize(figure, width: float, height: float) -> None:
    """Give a figure a size in pixels."""
    # a hundredth of a pixel more: matplotlib cuts off what is behind the point
    figure.set_size_inches((int(width) + 0.01) / DPI, (int(height) + 0.01) / DPI)


def to_array(figure) -> np.ndarray:
    """Draw: (height, width, 3) uint8, RGB."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def style_axes(axes, xlabel: str, ylabel: str = '') -> None:
    """Quiet labels and ticks, and no frame but at the left and below."""
    axes.set_xlabel(xlabel, fontsize=SMALL, color=QUIET)
    axes.set_ylabel(ylabel, fontsize=SMALL, color=QUIET)
    axes.tick_params(labelsize=SMALL, colors=QUIET, length=3)
    axes.spines[:].set_color(QUIET)
    axes.spines[['top', 'right']].set_visible(False)


def plain(**style) -> dict:
    """Style of a text in which ``$`` has no special meaning."""
    return dict(family=FONT, parse_math=False, color=TEXT) | style


def text_width(text: str, size: float, weight: str = 'normal') -> float:
    """Pixels that a line of text is wide, in the font of the pictures; ``size`` in points."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    font, renderer = FontProperties(family=FONT, size=size, weight=weight), RendererAgg(8, 8, DPI)
    return renderer.get_text_width_height_descent(printable(text), font, ismath=False)[0]


def wrap(
    text: str, width: float, size: float, weight: str = 'normal', max_lines: int = 4
) -> list[str]:
    """Break text into lines that fit.

    matplotlib wraps text too, but neither breaks a long word nor ends after some lines.

    Args:
        text (str): The text; runs of white space count as one space.
        width (float): Pixels a line may be wide.
        size (float): Points.
        weight (str): Weight of the font. Defaults to ``'normal'``.
        max_lines (int): What is left over is cut off with an ellipsis. Defaults to 4.

    Returns:
        list[str]: At least one line.
    """
    text, lines = printable(' '.join(text.split())), ['']
    letters = len(text)
    while letters > 2:
        lines = textwrap.wrap(text, letters, max_lines=max_lines, placeholder=' …')
        widest = max(text_width(line, size, weight) for line in lines)
        if widest <= width:
            break
        letters = min(letters - 1, int(letters * width / widest) + 1)
    return lines if letters > 2 else [text]


def format_time(seconds: float, duration: float) -> str:
    """Write a time, in a form that suits the video's length.

    Args:
        seconds (float): The time.
        duration (float): Seconds of the video: up to two minutes are told in seconds, up to an
            hour in ``min:s``, longer ones in ``h:min:s``.

    Returns:
        str: Such as ``7.3``, ``4:07`` or ``1:02:45``.
    """
    if duration <= 120:
        return f'{seconds:.1f}'
    minutes, rest = divmod(round(seconds), 60)
    if duration <= 3600:
        return f'{minutes}:{rest:02d}'
    return f'{minutes // 60}:{minutes % 60:02d}:{rest:02d}'


def time_unit(duration: float) -> str:
    """The unit that :func:`format_time` uses, for an axis."""
    return 's' if duration <= 120 else 'min:s' if duration <= 3600 else 'h:min:s'


def time_ticks(duration: float, wanted: int = 8) -> list[float]:
    """Round times from 0 to the duration, about ``wanted`` of them."""
    steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]
    step = next((s for s in steps if duration / s <= wanted), None)
    step = step or 3600 * math.ceil(duration / 3600 / wanted)
    return [i * step for i in range(math.floor(duration / step + 1e-6) + 1)]


def tick_text(seconds: float, duration: float) -> str:
    """A tick's label: as :func:`format_time`, without a needless ``.0``."""
    return format_time(seconds, duration).removesuffix('.0')
