"""Pictures of what a search in a library has found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmn_plugin.features import sample_frames

from .canvas import (
    PREDICTION,
    QUIET,
    SMALL,
    TRACK,
    format_time,
    new_figure,
    plain,
    resize,
    to_array,
    wrap,
)

WIDTH, LEFT, MARGIN = 960, 180, 20  # pixels: of the picture, of what is told of a hit, at the edges
ROOM = WIDTH - LEFT - MARGIN  # of a film strip
HEAD, LINE, STRIP, STEM, BAR, GAP = 40, 18, 72, 14, 8, 18  # heights
FRAMES, BETWEEN = 12, 3  # of a strip at most, and pixels between them


def draw_hits(
    sentences: Sequence[str], answers: Sequence[Sequence], notes: Sequence[str] = ()
) -> np.ndarray:
    """Draw the hits of sentences: a film strip of each moment, and where in its video that is.

    Args:
        sentences (Sequence[str]): S sentences.
        answers (Sequence[Sequence[Hit]]): The hits of each, best first, as `MomentLibrary.search`
            gives them. Those without a video file have no film strip.
        notes (Sequence[str]): A text for each sentence, '' for none. Defaults to none at all.

    Returns:
        np.ndarray: (H, 960, 3) uint8, RGB.

    Raises:
        VideoReadError: If a video cannot be read.
    """
    figure = new_figure(WIDTH, WIDTH, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis('off')
    y = MARGIN / 2
    for sentence, hits, note in zip(sentences, answers, notes or [''] * len(answers), strict=True):
        y = _draw_heading(axes, y, f'“{sentence}”', note or ('' if hits else 'no moments'))
        for rank, hit in enumerate(hits, 1):
            y = _draw_hit(axes, y, rank, hit)
    resize(figure, WIDTH, y)
    axes.set(xlim=(0, WIDTH), ylim=(int(y), 0))
    return to_array(figure)


def _draw_heading(axes, y: float, sentence: str, note: str) -> float:
    """The sentence and its note; the place below them."""
    for line in wrap(sentence, WIDTH - 2 * MARGIN, 11.5, 'bold'):
        y += LINE
        axes.text(MARGIN, y, line, **plain(size=11.5, weight='bold', va='center'))
    if note:
        y += LINE
        axes.text(MARGIN, y, note, **plain(size=SMALL, color=QUIET, va='center'))
    return y + HEAD - LINE


def _draw_hit(axes, y: float, rank: int, hit) -> float:
    """What is told of a hit, its film strip, and its moment on a bar of the whole video."""
    start, end, length = (format_time(t, hit.duration) for t in (hit.start, hit.end, hit.duration))
    unit = ' s' * (hit.duration <= 120)
    (name,) = wrap(f'{rank}  {hit.video_id}', LEFT - MARGIN - 10, 10, 'bold', max_lines=1)
    axes.text(MARGIN, y + 9, name, **plain(size=10, weight='bold', va='center'))
    lines = f'{start} \N{EN DASH} {end} of {length}{unit}', f'score {hit.score:.3f}'
    if hit.presence is not None:
        lines += (f'presence {hit.presence:.3f}',)
    for place, text in enumerate(lines, 1):
        style = plain(size=SMALL, color=QUIET, va='center')
        axes.text(MARGIN, y + 11 + place * LINE, text, **style)
    edges = np.clip(np.array([hit.start, hit.end]) / hit.duration, 0, 1) * ROOM + LEFT
    right = _draw_strip(axes, y, hit)
    y += STRIP + STEM
    for above, below in zip((LEFT, right), edges, strict=True):
        axes.plot([above, below], [y - STEM + 2, y], color=PREDICTION, linewidth=0.8, alpha=0.6)
    axes.barh(y, ROOM, BAR, LEFT, align='edge', color=TRACK)
    axes.barh(y, max(edges[1] - edges[0], 2), BAR, edges[0], align='edge', color=PREDICTION)
    return y + BAR + GAP


def _draw_strip(axes, y: float, hit) -> float:
    """Pictures of the moment; the right edge of the last one."""
    if not Path(hit.path).is_file():  # features, or a video that is gone
        return LEFT + ROOM
    frames = sample_frames(hit.path, FRAMES, STRIP, (hit.start, hit.end))
    width = min(frames[0].shape[1], ROOM)
    count = min(FRAMES, (ROOM + BETWEEN) // (width + BETWEEN))
    for place, left in enumerate(np.linspace(LEFT, LEFT + ROOM - width, count)):
        frame = frames[int((place + 0.5) / count * FRAMES)]
        axes.imshow(frame, extent=(left, left + width, y + STRIP, y), aspect='auto')
    return LEFT + ROOM if count > 1 else left + width
