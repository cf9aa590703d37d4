"""What a detector with a tracker found, from a file."""
import json
from pathlib import Path

import numpy as np

from .tube_error import TubeError
from .tube_file import TubeFile
from .tube_video import check_tube


def read_tracks(path: str | Path, video_id: str) -> list[np.ndarray]:
    """Candidate tubes of a video, from any detector and tracker.

    Two formats are read. JSON: ``{"<video>": [track, ...]}``, a track being a list of
    [frame, x1, y1, x2, y2] in any order; frame counts the video's frames from 0, boxes are in
    pixels of the video, both edges included. Numbers after the fifth (a detector's score) are left
    alone. HDF5: a tube file, see `write_tube_file`.

    Args:
        path (str | Path): ``.json`` file, or a tube file.
        video_id (str): Name of the video, with or without suffix.

    Returns:
        list[np.ndarray]: (n, 5) float32 each, frames rising.

    Raises:
        FileNotFoundError: If the file does not exist.
        TubeError: If it is in neither format, or lacks the video.
    """
    path = Path(path)
    if path.suffix != '.json':
        return TubeFile(path).read(video_id).tubes
    if not path.is_file():
        raise FileNotFoundError(f'track file {path} does not exist')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise TubeError(f'{path} is not a JSON file: {error}') from error
    if not isinstance(content, dict):
        raise TubeError(f'{path} is not a JSON object {{video: [track, ...]}}')
    name = next((key for key in (video_id, Path(video_id).stem) if key in content), None)
    if name is None:
        raise TubeError(f'{path} has no video {video_id!r}; it has '
                        f'{", ".join(sorted(content)[:3]) or "none"}')
    return [_track(rows, f'{path}: video {name!r}, track {i}')
            for i, rows in enumerate(content[name])]


def _track(rows, where: str) -> np.ndarray:
    try:
        track = np.array(sorted([float(value) for value in row[:5]] for row in rows), np.float32)
    except (TypeError, ValueError) as error:
        raise TubeError(f'{where} is not a list of [frame, x1, y1, x2, y2]: {error}') from error
    check_tube(track, where)
    return track
