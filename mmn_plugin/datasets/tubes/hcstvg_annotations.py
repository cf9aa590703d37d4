"""HC-STVG's annotation JSON."""

from pathlib import Path

import numpy as np

from mmn_plugin.structures.read_json import read_json

from .tube_error import TubeError
from .tube_video import check_tube


def read_hcstvg_annotations(path: str | Path) -> dict[str, tuple[str, np.ndarray | None]]:
    """Read sentences and true tubes.

    A video maps to ``English`` (or ``caption``) and, where the truth is published, ``st_frame``,
    ``ed_frame`` and ``bbox``: a list of x, y, w, h for each frame from ``st_frame`` on. Boxes
    become x1, y1, x2 = x + w, y2 = y + h. A null in the list is a frame without a box.

    Args:
        path (str | Path): JSON file.

    Returns:
        dict[str, tuple[str, np.ndarray | None]]: video -> sentence and tube (n, 5) float32, or
        None where the file has no truth.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is not in this format; the message names the video.
    """
    path = Path(path)
    content = read_json(path, f'annotation file {path} does not exist', TubeError)
    if not isinstance(content, dict) or not content:
        raise TubeError(
            f'{path} holds no videos; expected a JSON object {{video: {{"st_frame": '
            '..., "ed_frame": ..., "bbox": ..., "English": ...}}'
        )
    return {video: _parse(entry, f'{path}: video {video!r}') for video, entry in content.items()}


def _parse(entry: dict, where: str) -> tuple[str, np.ndarray | None]:
    if not isinstance(entry, dict):
        raise TubeError(f'{where} is {entry!r}, not an object')
    sentence = entry.get('English', entry.get('caption'))
    if not isinstance(sentence, str) or not sentence.strip():
        raise TubeError(f'{where} has no sentence under "English"')
    if 'bbox' not in entry:
        return sentence, None
    try:
        start, end = int(entry['st_frame']), int(entry['ed_frame'])
        boxes = entry['bbox']
        rows = [(start + i, *map(float, box)) for i, box in enumerate(boxes) if box is not None]
        tube = np.array(rows, np.float64).reshape(-1, 5)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TubeError(
            f'{where}: expected "st_frame", "ed_frame" and "bbox", a list of [x, y, w, '
            f'h] ({type(error).__name__}: {error})'
        ) from error
    if len(boxes) not in (end - start, end - start + 1):  # files differ in whether ed_frame is in
        raise TubeError(f'{where} has {len(boxes)} boxes for the frames {start} to {end}')
    tube[:, 3:] += tube[:, 1:3]
    check_tube(tube, f'{where}, its bbox')
    return sentence, tube.astype(np.float32)
