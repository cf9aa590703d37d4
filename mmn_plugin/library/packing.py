"""Moments of videos, or of other segments, as one segment."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmn_plugin.errors import InputError

from .moment_store import StoredVideo
from .segment import ROTATION_ROWS, Axes, Segment, SegmentWriter, axes_of, check_moments

Moments = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray | None]
AxesOf = Mapping[str, Axes]


def check_videos(videos: Sequence[StoredVideo], dtype: str) -> list[Moments]:
    """The moments of videos as `SegmentWriter.append` takes them.

    Raises:
        InputError: If something of a video cannot be stored, or an id is there twice.
    """
    seen: set[str] = set()
    for video in videos:
        name = f'video {video.video_id!r}'
        if not isinstance(video.video_id, str) or not video.video_id:
            raise InputError(f'{name}: an id is a text that is not empty')
        if video.video_id in seen:
            raise InputError(f'{name} is there twice: give one of them another id')
        seen.add(video.video_id)
        try:
            video.video_id.encode()
        except UnicodeEncodeError:
            raise InputError(f'{name}: this id cannot be stored, as it is no Unicode') from None
        if not (math.isfinite(video.duration) and video.duration > 0):
            raise InputError(f'{name}: its duration is {video.duration} seconds')
        try:
            json.dumps(video.meta, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f'{name}: its metadata cannot be written as JSON: {error}') from None
    return [_moments_of(video, dtype) for video in videos]


def _moments_of(video: StoredVideo, dtype: str) -> Moments:
    """Arrays of one video; a length is a share of what was looked at at once."""
    found = video.embedding
    window = video.duration / found.length_in_windows
    lengths = (found.spans[:, 1] - found.spans[:, 0]) / window
    name = f'video {video.video_id!r}'
    return check_moments(found.embeddings, found.spans, lengths, found.trust, dtype, name)


def widths_of(moments: Moments) -> dict[str, int]:
    """J of each space."""
    return {space: vectors.shape[1] for space, vectors in moments[0].items()}


def write_videos(path: Path, videos: Sequence[Moments], dtype: str, axes: AxesOf | None) -> None:
    """Write moments of videos, by axes that are given or their own."""
    rows = sum(len(spans) for _, spans, *_ in videos)
    own, step = axes is None, _step(rows)
    if own:
        axes = {
            space: axes_of((vectors[space][::step] for vectors, *_ in videos), width)
            for space, width in widths_of(videos[0]).items()
        }
    trust = any(trust is not None for *_, trust in videos)
    with SegmentWriter(path, rows, axes, dtype, trust, own) as writer:
        for moments in videos:
            writer.append(*moments)
        writer.close()


def write_merged(
    path: Path,
    sources: Sequence[tuple[Segment, np.ndarray]],
    dtype: str,
    axes: AxesOf | None,
) -> None:
    """Write moments of other segments (rows rising), by axes that are given or their own.

    Raises:
        InputError: If a segment is damaged; its damage would get a new checksum.
    """
    for segment, _ in sources:
        if problems := segment.verify():
            raise InputError(f'{problems[0]}; `mmn library verify` names the videos to update')
    count = sum(len(rows) for _, rows in sources)
    own, step = axes is None, _step(count)
    if own:
        axes = {
            space: axes_of(
                (s.vectors(space, rows[::step]) @ s.rotation[space] for s, rows in sources), width
            )
            for space, width in sources[0][0].widths.items()
        }
    trust = any(segment.trust is not None for segment, _ in sources)
    with SegmentWriter(path, count, axes, dtype, trust, own) as writer:
        for segment, rows in sources:
            writer.copy(segment, rows)
        writer.close()


def _step(rows: int) -> int:
    """Every which row a rotation is computed on."""
    return max(-(-rows // ROTATION_ROWS), 1)
