"""A figure, its colors, and text that fits."""

import math
from functools import lru_cache

import numpy as np

from mmn_plugin.files import printable

TRUTH = '#E69F00'  # ground truth: orange
PREDICTION = '#0072B2'  # predictions: blue, fading down the ranks
TEXT = '#222222'
QUIET = '#666666'  # axis labels and what else should not catch the eye
GRID = '#D8D8D8'
TRACK = '#F2F2F2'  # the whole length of the video, behind a bar
ABSENT = '#D0D0D0'  # cells of a moment map that do not exist
HEAT = 'Blues'  # matplotlib's name of the heat map's colours, light to dark
RUNS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#000000')


def fade(colour: str, amount: float) -> str:
    """Mix a colour with white: 0 leaves it, 1 is white."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return '#' + ''.join(f'{round(c + (255 - c) * amount):02X}' for c in channels)


DPI = 100


class Canvas:
    """A white figure with one axes over all of it, whose unit is the pixel, y pointing down.

    Uses matplotlib's Agg figures directly: nothing of pyplot's global state is touched.

    Args:
        width (int): Pixels.
        height (int): Pixels.

    Attributes:
        figure: The matplotlib figure, for further axes.
        axes: The pixel axes.
    """

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = int(width), int(height)
        # a hundredth of a pixel more: matplotlib cuts off what is behind the point
        self.figure = Figure(
            figsize=((self.width + 0.01) / DPI, (self.height + 0.01) / DPI),
            dpi=DPI,
            facecolor='white',
        )
        self._agg = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self._reset()

    def _reset(self) -> None:
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(self.height, 0)

    def text(self, x: float, y: float, text: str, size: float = 9, **style) -> None:
        """Write text; ``size`` in points, ``$`` has no special meaning."""
        style = dict(va='center', ha='left', family='DejaVu Sans', parse_math=False) | style
        self.axes.text(x, y, printable(text), fontsize=size, **style)

    def rectangle(self, left: float, top: float, width: float, height: float, **style) -> None:
        """Draw a rectangle without an edge, unless ``style`` says otherwise."""
        from matplotlib.patches import Rectangle

        style = dict(linewidth=0) | style
        self.axes.add_patch(Rectangle((left, top), width, height, **style))

    def picture(
        self, image: np.ndarray, left: float, top: float, width: float, height: float
    ) -> None:
        """Show an image (H, W, 3) uint8, scaled to a rectangle."""
        self.axes.imshow(image, extent=(left, left + width, top + height, top), aspect='auto')
        self._reset()

    def inner_axes(self, left: float, top: float, width: float, height: float):
        """Make a common axes that fills a rectangle of the picture."""
        return self.figure.add_axes(
            (
                left / self.width,
                1 - (top + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def to_array(self) -> np.ndarray:
        """Draw: (height, width, 3) uint8, RGB."""
        self._agg.draw()
        return np.asarray(self._agg.buffer_rgba())[..., :3].copy()


@lru_cache(maxsize=1)
def _renderer():
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(8, 8, DPI)


def text_width(text: str, size: float, weight: str = 'normal') -> float:
    """Pixels that a line of text is wide, in the font of the pictures; ``size`` in points."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family='DejaVu Sans', size=size, weight=weight)
    return _renderer().get_text_width_height_descent(printable(text), font, ismath=False)[0]


def wrap(
    text: str, width: float, size: float, weight: str = 'normal', max_lines: int = 4
) -> list[str]:
    """Break text into lines that fit.

    Args:
        text (str): The text; runs of white space count as one space.
        width (float): Pixels a line may be wide.
        size (float): Points.
        weight (str): Weight of the font. Defaults to ``'normal'``.
        max_lines (int): What is left over is cut off with an ellipsis. Defaults to 4.

    Returns:
        list[str]: At least one line.
    """
    lines, line = [], ''
    for word in text.split():
        for piece in _pieces(word, width, size, weight):
            longer = f'{line} {piece}'.strip()
            if line and text_width(longer, size, weight) > width:
                lines.append(line)
                longer = piece
            line = longer
    lines.append(line)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and text_width(last + ' …', size, weight) > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], last + ' …']
    return lines


def _pieces(word: str, width: float, size: float, weight: str) -> list[str]:
    """A word in parts none of which is wider than a line."""
    pieces = []
    while text_width(word, size, weight) > width and len(word) > 1:
        length = len(word) - 1
        while length > 1 and text_width(word[:length], size, weight) > width:
            length = min(length - 1, int(length * width / text_width(word[:length], size, weight)))
        length = max(length, 1)
        pieces.append(word[:length])
        word = word[length:]
    return [*pieces, word]


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
