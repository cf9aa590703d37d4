"""Pictures of tubes."""

from collections.abc import Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from mmn_plugin.datasets import check_frames
from mmn_plugin.features import RGBVideoReader, VideoInfo, VideoWriter, probe_video
from mmn_plugin.structures import TubeDataSample, tube_iou

from .canvas import PREDICTION, TRUTH, new_figure, plain, to_array, wrap

CAPTION = 28  # pixels a line of the caption takes
GAP = 4  # pixels between frames
SIDE = 256  # pixels that the shorter side of a frame has at least
BLANK = 224  # gray of a frame where there is no video


def draw_tube_frames(
    video: str | Path | None,
    sentence: str,
    tube: np.ndarray,
    truth: np.ndarray | None = None,
    count: int = 6,
) -> np.ndarray:
    """Some frames of a video beside each other, their numbers and the caption below.

    Args:
        video (str | Path | None): The video; None: boxes are drawn on gray.
        sentence (str): Caption.
        tube (np.ndarray): (n, 5), drawn in blue.
        truth (np.ndarray, optional): (m, 5), drawn in orange. Defaults to None.
        count (int): Number of frames, at even distances over all that have a box. Defaults to 6.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB.

    Raises:
        VideoReadError: If the video cannot be read.
        TubeError: If a box is in a frame after its last one.
    """
    parts = [part for part in (truth, tube) if part is not None and len(part)]
    first = min((part[0, 0] for part in parts), default=0)
    last = max((part[-1, 0] for part in parts), default=0)
    wanted = {int(frame) for frame in np.rint(np.linspace(first, last, count))}
    if video is None:
        pictures, scale = _blank(parts)
    else:
        info = _probe(video, parts)
        side = min(info.height, info.width)
        scale = -(-SIDE // side) if side < SIDE else SIDE / side
        pictures = _read(video, info, scale)
    cells = []
    for frame, picture in enumerate(islice(pictures, max(wanted) + 1)):
        if frame in wanted:
            _draw_boxes(frame, picture, scale, tube, truth)
            cell = np.concatenate([picture, _caption(str(frame), picture.shape[1])])
            cells.append(np.pad(cell, ((0, 0), (0, GAP), (0, 0)), constant_values=255))
    row = np.concatenate(cells, 1)
    return np.concatenate([row, _caption(sentence, row.shape[1])])


def draw_tubes(
    sample: TubeDataSample,
    video: str | Path | None = None,
    max_sentences: int = 8,
    count: int = 6,
    draw_gt: bool = True,
    draw_pred: bool = True,
) -> np.ndarray:
    """Draw frames with the true box (orange) and the answer's (blue), a row per sentence.

    Args:
        sample (TubeDataSample): The video, its sentences and their tubes.
        video (str | Path | None): The video file. Defaults to None: boxes on gray.
        max_sentences (int): Further ones are left out. Defaults to 8.
        count (int): Frames of a row, at even distances. Defaults to 6.
        draw_gt (bool): Whether to draw the ground truth, where known. Defaults to True.
        draw_pred (bool): Whether to draw the answers, where there are. Defaults to True.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB.

    Raises:
        VideoReadError: If the video cannot be read.
        TubeError: If it has no such frame as a box is in.
    """
    truth = sample.gt_instances.tubes if draw_gt and 'gt_instances' in sample else None
    found = sample.pred_instances if draw_pred and 'pred_instances' in sample else None
    rows = []
    for i, sentence in enumerate(sample.sentences[:max_sentences]):
        caption, tube, true = f'“{sentence}”', np.zeros((0, 5)), truth and truth[i]
        if found is not None:
            tube = found.tubes[i]
            caption += f'  score {float(found.scores[i]):.3f}' if len(tube) else '  no answer'
            if truth is not None:
                caption += f', vIoU {tube_iou(tube, true)[0]:.2f}'
        rows.append(draw_tube_frames(video, caption, tube, true, count))
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [
            np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
            for row in rows
        ]
    )


def write_tube_video(
    video: str | Path,
    out: str | Path,
    sentence: str,
    tube: np.ndarray,
    truth: np.ndarray | None = None,
) -> None:
    """Write the video with the box in it and the sentence below; every picture keeps its time.

    Args: as of `draw_tube_frames`; ``out`` is the .mp4 to write.

    Raises:
        VideoReadError: If the video cannot be read.
        TubeError: If a box is in a frame after its last one.
    """
    info = _probe(video, [tube] if truth is None else [tube, truth])
    scale = max(1, -(-SIDE // min(info.height, info.width)))
    ends = np.append(info.times[1:], info.duration)
    # without B-frames the last packet is the last picture, which is shown to the end
    with VideoWriter(out, info.rate, bf='0') as writer:
        writer.end = info.duration
        for frame, (picture, begin, end) in enumerate(
            zip(_read(video, info, scale), info.times, ends, strict=True)
        ):
            if begin < end:  # else nobody sees it
                _draw_boxes(frame, picture, scale, tube, truth)
                writer.add(np.concatenate([picture, _caption(sentence, picture.shape[1])]), begin)


def _probe(video: str | Path, tubes: Sequence[np.ndarray]) -> VideoInfo:
    """What is known of a video that has a picture for every box."""
    info = probe_video(video)
    for tube in tubes:
        check_frames(tube, len(info.times), str(video))
    return info


def _read(video: str | Path, info: VideoInfo, scale: float) -> Iterator[np.ndarray]:
    """Every picture of a video, by its number."""
    shape = round(info.height * scale), round(info.width * scale)
    return map(np.array, RGBVideoReader(video, None, info.times, shape))  # one may come twice


def _blank(tubes: Sequence[np.ndarray]) -> tuple[Iterator[np.ndarray], float]:
    """Pictures without content that the boxes fit in, and the scale of the boxes."""
    sides = [tube[:, 3:].max(0) + 1.0 for tube in tubes]
    width, height = np.max([*sides, (1, 1)], 0)
    width, height = max(width, height / 2), max(height, width / 2)
    scale = SIDE / min(width, height)
    shape = round(height * scale), round(width * scale), 3
    return (np.full(shape, BLANK, np.uint8) for _ in repeat(None)), scale


def _draw_boxes(frame: int, picture: np.ndarray, scale: float, tube, truth) -> None:
    """Draw the boxes of a frame into its picture."""
    for part, color in ((truth, TRUTH), (tube, PREDICTION)):
        for row in part[part[:, 0] == frame] if part is not None else ():
            _draw_box(picture, np.add(row[1:], (0, 0, 1, 1)) * scale, color)


def _draw_box(picture: np.ndarray, box: np.ndarray, color: str) -> None:
    """A frame of 3 pixels, in place; what lies outside the picture is cut off."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x1, x2, y1, y2 = *np.clip([x1, x2], 0, width), *np.clip([y1, y2], 0, height)
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    for rows, columns in (
        (slice(y1, y1 + 3), slice(x1, x2)),
        (slice(max(y2 - 3, 0), y2), slice(x1, x2)),
        (slice(y1, y2), slice(x1, x1 + 3)),
        (slice(y1, y2), slice(max(x2 - 3, 0), x2)),
    ):
        picture[rows, columns] = rgb


def _caption(sentence: str, width: int) -> np.ndarray:
    """The sentence on white, in as many lines as it takes, (h, width, 3) uint8."""
    lines = wrap(sentence, width - 12, 11, max_lines=99)
    height = CAPTION * len(lines)
    figure = new_figure(width, height, layout=None)
    for i, line in enumerate(lines):
        y = 1 - (i + 0.5) / len(lines)
        figure.text(6 / width, y, line, va='center', **plain(size=11, color='black'))
    return to_array(figure)
