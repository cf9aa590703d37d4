"""Moments of videos, or of other segments, as one segment."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmn_plugin.errors import InputError

from .moment_store import StoredVideo
from .segment import DTYPES, ROTATION_ROWS, Axes, Segment, SegmentWriter, axes_of

AxesOf = Mapping[str, Axes]


class Moments(NamedTuple):
    """Checked moments of a video: the arrays, float32, that `SegmentWriter.append` takes."""

    vectors: dict[str, np.ndarray]
    spans: np.ndarray
    lengths: np.ndarray
    trust: np.ndarray | None

    @property
    def widths(self) -> dict[str, int]:
        """J of each space."""
        return {space: vectors.shape[1] for space, vectors in self.vectors.items()}


def check_moments(
    embeddings: Mapping[str, Tensor | np.ndarray],
    spans: Tensor | np.ndarray,
    lengths: Tensor | np.ndarray,
    trust: Tensor | np.ndarray | None,
    dtype: str,
    name: str,
) -> Moments:
    """What `write_segment` takes, checked.

    Messages begin with ``name``.

    Raises:
        InputError: If shapes disagree, a number is not finite, or a vector is longer than ``dtype``
            can store.
    """
    if dtype not in DTYPES:
        raise InputError(f'vectors are stored as {" or ".join(DTYPES)}, not as {dtype!r}')
    vectors = {space: _array(values) for space, values in embeddings.items()}
    spans, lengths = _array(spans), _array(lengths)
    trust = None if trust is None else _array(trust)
    rows = len(spans)
    columns = {'spans': spans, 'lengths': lengths, **({} if trust is None else {'trust': trust})}
    for key, values in {**columns, **vectors}.items():
        wanted = {'spans': (rows, 2), 'lengths': (rows,), 'trust': (rows,)}.get(key)
        if values.shape != (wanted or (rows, values.shape[-1])):
            raise InputError(f'{name}: {key} are {values.shape}, which does not fit {rows} moments')
        if not (finite := np.isfinite(values)).all():
            moment = np.argwhere(~finite)[0][0]
            raise InputError(f'{name}: {key} hold NaN or Inf, first in moment {moment}')
    largest = float(np.finfo(DTYPES[dtype]).max)
    for space, values in vectors.items():
        norms = np.sqrt(np.einsum('mj,mj->m', values, values, dtype=np.float64))
        if rows and norms.max() > largest:  # a rotation may turn all of it into one coordinate
            raise InputError(
                f'{name}: moment {norms.argmax()} has a vector of length {norms.max():.3g} in '
                f'{space}, more than {dtype} can store ({largest:.3g}); scale the embeddings, or '
                'store float32'
            )
    return Moments(vectors, spans, lengths, trust)


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(torch.as_tensor(values).detach().float().cpu().numpy())


def check_videos(videos: Sequence[StoredVideo], dtype: str) -> list[Moments]:
    """The moments of each video.

    Raises:
        InputError: If something of a video cannot be stored, or an id is there twice.
    """
    seen: set[str] = set()
    checked = []
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
        found = video.embedding
        window = video.duration / found.length_in_windows  # what was looked at at once
        lengths = (found.spans[:, 1] - found.spans[:, 0]) / window
        columns = found.spans, lengths, found.trust
        checked.append(check_moments(found.embeddings, *columns, dtype, name))
    return checked


def own_axes(
    widths: Mapping[str, int], rows: int, chunks: Callable[[str, int], Iterable[np.ndarray]]
) -> AxesOf:
    """Axes of some moments, of every which one where they are many; `chunks` gives the vectors of a
    space, with a step from one to the next.
    """
    step = max(-(-rows // ROTATION_ROWS), 1)
    return {space: axes_of(chunks(space, step), width) for space, width in widths.items()}


def write_videos(
    path: str | Path, videos: Sequence[Moments], dtype: str, axes: AxesOf | None
) -> None:
    """Write moments of videos, by axes that are given or their own."""
    rows = sum(len(one.spans) for one in videos)
    if own := axes is None:
        axes = own_axes(
            videos[0].widths,
            rows,
            lambda space, step: (one.vectors[space][::step] for one in videos),
        )
    trust = any(one.trust is not None for one in videos)
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
    if own := axes is None:
        axes = own_axes(
            sources[0][0].widths,
            count,
            lambda space, step: (s.unrotated(space, rows[::step]) for s, rows in sources),
        )
    trust = any(segment.trust is not None for segment, _ in sources)
    with SegmentWriter(path, count, axes, dtype, trust, own) as writer:
        for segment, rows in sources:
            writer.copy(segment, rows)
        writer.close()


def write_segment(
    path: str | Path,
    embeddings: Mapping[str, Tensor],
    spans: Tensor,
    lengths: Tensor,
    trust: Tensor | None = None,
    dtype: str = 'float16',
    axes: Mapping[str, Axes] | None = None,
) -> Segment:
    """Write moments that are all in memory, and open them.

    Args:
        path (str | Path): The file.
        embeddings (Mapping[str, Tensor]): (M, J) of each space, vectors of any length.
        spans (Tensor): (M, 2) start and end in seconds.
        lengths (Tensor): (M,) a moment's length as a share of what was looked at at once.
        trust (Tensor | None): (M,) factor on the scores. Defaults to None: 1 for all.
        dtype (str): What coordinates are rounded to, ``float16`` or ``float32``. Defaults to
            ``float16``.
        axes (Mapping[str, Axes] | None): Of each space. Defaults to None: those of these vectors,
            see `axes_of`.

    Raises:
        InputError: As of `check_moments`.
    """
    moments = check_moments(embeddings, spans, lengths, trust, dtype, str(path))
    write_videos(path, [moments], dtype, axes)
    return Segment(path)
