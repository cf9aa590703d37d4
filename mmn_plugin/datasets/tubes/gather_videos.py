"""From published containers to videos."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .tube_error import TubeError
from .tube_video import TubeVideo


def gather_videos(
    annotations: Mapping[str, tuple],
    tubes: Mapping[str, Any],
    streams: Mapping[str, Mapping[str, Any]],
) -> Iterator[TubeVideo]:
    """Put annotations, tubes and features together, video by video.

    Args:
        annotations (Mapping[str, tuple]): video -> sentence and true tube (or None), see
            `read_hcstvg_annotations`.
        tubes (Mapping[str, Any]): video -> tubes: a list, or a mapping from names, of (n, 5) frame,
            x1, y1, x2, y2. A video that is absent has none. Boxes are sorted by frame.
        streams (Mapping[str, Mapping[str, Any]]): Name of a stream -> video -> features in the
            order (or under the names) of the tubes, each (rows, D).

    Yields:
        TubeVideo: In the order of the annotations.

    Raises:
        TubeError: If something does not fit together; the message names video and stream.
    """
    for name, content in dict(tubes=tubes, **streams).items():
        if not isinstance(content, Mapping):
            raise TubeError(
                f'{name}: expected a mapping from videos, found {type(content).__name__}'
            )
    for video_id, (sentence, truth) in annotations.items():
        found = _of_video(tubes, video_id)
        names = list(found) if isinstance(found, Mapping) else range(len(found))
        features = (
            {
                stream: _features(stream, content, video_id, names)
                for stream, content in streams.items()
            }
            if len(names)
            else {}
        )
        yield TubeVideo(
            video_id,
            [sentence],
            [] if truth is None else [truth],
            [_sorted_boxes(found[name]) for name in names],
            features,
        )


def _of_video(content: Mapping, video_id: str):
    """A video's entry, under its id with or without the suffix of a video file."""
    for key in (video_id, Path(video_id).stem, f'{video_id}.mkv', f'{video_id}.mp4'):
        if key in content:
            return content[key]
    return []


def _sorted_boxes(tube) -> np.ndarray:
    tube = np.asarray(tube, dtype=np.float32)
    return tube[np.argsort(tube[:, 0], kind='stable')] if tube.ndim == 2 else tube


def _features(stream: str, content: Mapping, video_id: str, names) -> list[np.ndarray]:
    found = _of_video(content, video_id)
    if isinstance(names, range):
        if isinstance(found, Mapping) or len(found) != len(names):
            raise TubeError(
                f'video {video_id!r}: stream {stream!r} has features of {len(found)} '
                f'tubes, but there are {len(names)}; take both from one run'
            )
    else:
        missing = [name for name in names if not isinstance(found, Mapping) or name not in found]
        if missing:
            raise TubeError(
                f'video {video_id!r}: stream {stream!r} has no features of tube {missing[0]!r}'
            )
    return [np.asarray(found[name], dtype=np.float32) for name in names]
