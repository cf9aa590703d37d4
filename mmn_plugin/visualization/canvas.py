"""A picture that is laid out in pixels."""

import numpy as np

from mmn_plugin.files import printable

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
