"""A tube drawn into its video, as a picture or as a video, with the sentence below."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmn_plugin.features import VideoWriter, probe_video, read_pictures

from .palette import PREDICTION, TRUTH

CAPTION = 28  # pixels a line of the caption takes
GAP = 4  # pixels between frames
SIDE = 256  # pixels that the shorter side of a frame has at least


def draw_tube_frames(video: str | Path, sentence: str, tube: np.ndarray,
                     truth: np.ndarray | None = None, count: int = 6) -> np.ndarray:
    """Some frames of a video beside each other, the caption below.

    Args:
        video (str | Path): The video.
        sentence (str): Caption.
        tube (np.ndarray): (n, 5), drawn in blue; frames are taken from its span.
        truth (np.ndarray, optional): (m, 5), drawn in orange. Defaults to None.
        count (int): Number of frames. Defaults to 6.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    span = tube if len(tube) or truth is None else truth
    first, last = (span[0, 0], span[-1, 0]) if len(span) else (0, 0)
    wanted = {int(frame) for frame in np.rint(np.linspace(first, last, count))}
    shown = [np.pad(picture, ((0, 0), (0, GAP), (0, 0)), constant_values=255)
             for time, picture in _drawn(video, tube, truth) if time in wanted]
    row = np.concatenate(shown, 1) if shown else np.full((SIDE, SIDE, 3), 255, np.uint8)
    return np.concatenate([row, _caption(sentence, row.shape[1])])


def write_tube_video(video: str | Path, out: str | Path, sentence: str, tube: np.ndarray,
                     truth: np.ndarray | None = None) -> None:
    """Write the video with the box in it and the sentence below.

    Args: as of `draw_tube_frames`; ``out`` is the .mp4 to write.

    Raises:
        VideoReadError: If the video cannot be read.
    """
    with VideoWriter(out, probe_video(video).rate) as writer:
        for _, picture in _drawn(video, tube, truth):
            writer.add(np.concatenate([picture, _caption(sentence, picture.shape[1])]))


def _drawn(video, tube, truth) -> Iterator[tuple[int, np.ndarray]]:
    """Every frame's number and picture, RGB, with its boxes."""
    boxes = [({int(row[0]): row[1:] for row in part}, colour)
             for part, colour in ((truth, TRUTH), (tube, PREDICTION)) if part is not None]
    for time, (_, picture) in enumerate(read_pictures(video)):
        scale = max(1, -(-SIDE // min(picture.shape[:2])))
        picture = picture.repeat(scale, 0).repeat(scale, 1)
        for by_frame, colour in boxes:
            if time in by_frame:
                _draw_box(picture, (by_frame[time] + [0, 0, 1, 1]) * scale, colour)
        yield time, picture


def _draw_box(picture: np.ndarray, box: np.ndarray, colour: str) -> None:
    """A frame of 3 pixels, in place; what lies outside the picture is cut off."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x1, x2, y1, y2 = *np.clip([x1, x2], 0, width), *np.clip([y1, y2], 0, height)
    rgb = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    for rows, columns in ((slice(y1, y1 + 3), slice(x1, x2)), (slice(max(y2 - 3, 0), y2),
                          slice(x1, x2)), (slice(y1, y2), slice(x1, x1 + 3)),
                          (slice(y1, y2), slice(max(x2 - 3, 0), x2))):
        picture[rows, columns] = rgb


def _caption(sentence: str, width: int) -> np.ndarray:
    """The sentence on white, in as many lines as it takes, (h, width, 3) uint8."""
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = textwrap.wrap(sentence, max(8, width // 9)) or ['']
    height = CAPTION * len(lines)
    figure = Figure(figsize=((width + 0.01) / 100, (height + 0.01) / 100), dpi=100,
                    facecolor='white')
    canvas = FigureCanvasAgg(figure)
    for i, line in enumerate(lines):
        figure.text(6 / width, 1 - (i + 0.5) / len(lines), line, size=11, va='center',
                    parse_math=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :width, :3].copy()
