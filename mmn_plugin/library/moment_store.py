"""What a library needs of its store: videos, moments, filters."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np

from mmn_plugin.files import replacing
from mmn_plugin.structures import VideoEmbedding

from .segment import Segment

_EXPORTED = 65_536  # moments that are in memory at once


@dataclass
class StoredVideo:
    """A video to be added.

    Attributes:
        video_id (str): What it is called in the library.
        path (str): Where it was found; may be empty.
        folder (str): What filters know as its folder; may be empty.
        duration (float): Seconds.
        modified (float | None): When its file was changed, in seconds since 1970 (UTC).
        meta (dict): What else is known of it, as JSON can hold it.
        embedding (VideoEmbedding): Its moments.
    """

    video_id: str
    path: str
    folder: str
    duration: float
    modified: float | None
    meta: dict
    embedding: VideoEmbedding


class VideoRow(NamedTuple):
    """A video in a library.

    Attributes:
        number (int): Its own as long as the library exists; an updated video has a new one.
        video_id, path, folder, duration, modified: As of `StoredVideo`.
        meta_json (str): `meta` as it is stored.
        segment (int | None): Number of the segment that its moments lie in; None: it has none.
        first_row (int): Row of its first moment.
        moments (int): Number of its moments, whose rows follow each other.
    """

    number: int
    video_id: str
    path: str
    folder: str
    duration: float
    modified: float | None
    meta_json: str
    segment: int | None
    first_row: int
    moments: int

    @property
    def meta(self) -> dict:
        """What else is known of it."""
        return json.loads(self.meta_json)


@dataclass(frozen=True)
class Snapshot:
    """A library at one moment; it stays as it is while others write.

    Attributes:
        segments (list[Segment]): Files of moments, in the order of their numbers.
        video_of_row (list[np.ndarray]): (M,) int32 of each segment, numbers of videos; -1: removed.
        videos (dict[int, VideoRow]): By number, in the order of segments and rows.
    """

    segments: list[Segment]
    video_of_row: list[np.ndarray]
    videos: dict[int, VideoRow]

    @cached_property
    def moments(self) -> int:
        """Number of moments of all videos."""
        return sum(video.moments for video in self.videos.values())

    @cached_property
    def spectrum(self) -> dict[str, dict[int, float]]:
        """Of each space, the share of the squared norms that the coordinates before a level hold.

        By level, the mean over all rows. A steep one makes the search fast.
        """
        rows = sum(segment.rows for segment in self.segments)
        shares: dict[str, dict[int, float]] = {}
        for segment in self.segments:
            for space, levels in segment.levels.items():
                found = shares.setdefault(space, dict.fromkeys(levels, 0.0))
                for level, share in zip(levels, segment.spectrum[space], strict=True):
                    found[level] += share * segment.rows / rows
        return shares

    @cached_property
    def by_id(self) -> dict[str, VideoRow]:
        """The videos by their ids."""
        return {video.video_id: video for video in self.videos.values()}

    def allowed(self, numbers: Collection[int] | None = None) -> list[np.ndarray] | None:
        """Which rows belong to some videos.

        Args:
            numbers (Collection[int] | None): Numbers of videos. Defaults to None: all.

        Returns:
            list[np.ndarray] | None: (M,) bool of each segment; None: all rows of all segments.
        """
        if numbers is None:
            if self.moments == sum(segment.rows for segment in self.segments):
                return None
            return [rows >= 0 for rows in self.video_of_row]
        kept = np.zeros(max(self.videos, default=0) + 2, bool)  # the last is that of -1
        kept[[number for number in numbers if number in self.videos]] = True
        return [kept[rows] for rows in self.video_of_row]

    def export(self, path: str | Path, **attributes) -> None:
        """Write all moments into an HDF5 file, for other stores and programs.

        The file has ``video_ids``, ``paths`` and ``durations`` of V videos; and of M moments
        ``video`` (M,) the place of its video, ``spans`` (M, 2) in seconds, ``lengths`` (M,) as
        shares of what was looked at at once, ``trust`` (M,), and ``embeddings/SPACE`` (M, J)
        float32, as they were before they were rotated and rounded.

        Args:
            path (str | Path): The file; it appears when it is complete.
            **attributes: Plain data, which become attributes of the file as JSON.
        """
        rows = self.videos.values()
        with replacing(path) as unfinished, h5py.File(unfinished, 'w') as file:
            for name, value in attributes.items():
                file.attrs[name] = json.dumps(value)
            text = h5py.string_dtype()
            file.create_dataset('video_ids', data=[row.video_id for row in rows], dtype=text)
            file.create_dataset('paths', data=[row.path for row in rows], dtype=text)
            file['durations'] = np.array([row.duration for row in rows])
            begin = 0
            for columns in self._blocks():
                end = begin + len(columns['video'])
                for name, values in columns.items():
                    if name not in file:
                        file.create_dataset(name, (self.moments, *values.shape[1:]), values.dtype)
                    file[name][begin:end] = values
                begin = end

    def _blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Columns of moments of a segment, some at a time."""
        places = {number: place for place, number in enumerate(self.videos)}
        for segment, owners in zip(self.segments, self.video_of_row, strict=True):
            kept = np.flatnonzero(owners >= 0)
            for start in range(0, len(kept), _EXPORTED):
                rows = kept[start : start + _EXPORTED]
                trust = segment.trust
                yield dict(
                    video=np.array([places[number] for number in owners[rows].tolist()], np.int32),
                    spans=segment.spans[rows],
                    lengths=segment.lengths[rows],
                    trust=np.ones(len(rows), np.float32) if trust is None else trust[rows],
                    **{f'embeddings/{s}': segment.unrotated(s, rows) for s in segment.spaces},
                )


class MomentStore(Protocol):
    """What a library needs of a store; `FolderStore` says what each does."""

    def add(self, videos: Sequence[StoredVideo], replace: bool = False) -> None: ...

    def remove(self, video_ids: Iterable[str]) -> int: ...

    def snapshot(self) -> Snapshot: ...

    def select(
        self, where: str | None = None, video_ids: Iterable[str] | None = None
    ) -> set[int]: ...

    def compact(self) -> None: ...

    def verify(self) -> list[str]: ...

    def damaged(self) -> list[str]: ...

    def info(self) -> dict: ...

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...
