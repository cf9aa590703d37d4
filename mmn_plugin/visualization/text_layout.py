"""How much room text takes."""

from functools import lru_cache

from mmn_plugin.files import printable

from .canvas import DPI


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
