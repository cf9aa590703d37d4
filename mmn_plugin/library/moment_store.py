"""What a library needs of its store: videos, moments, filters."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmn_plugin.structures import VideoEmbedding

from .segment import Segment


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
