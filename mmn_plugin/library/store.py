"""A library in a folder: files of moments, and one file of SQLite."""

import json
import math
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from mmn_plugin.errors import InputError, MissingFileError, UserError
from mmn_plugin.files import OutputError, printable, replacing
from mmn_plugin.locks import FileLock

from . import database
from .moment_store import Snapshot, StoredVideo, VideoRow
from .packing import AxesOf, Moments, check_videos, write_merged, write_videos
from .segment import Segment

_PATIENCE = 60.0  # seconds that a writer waits for another one
_OWN_ROTATION_ROWS = 4096  # fewer moments take the rotation of a larger segment
_MERGED = 16  # segments of about one size become one
_MERGED_ROWS = 16_384  # larger ones wait for `compact`


class FolderStore:
    """A library in a folder: immutable files of moments, and one file of SQLite.

    ``segments/`` holds the vectors, spans and lengths, see `Segment`; ``library.sqlite`` the
    videos, the list of segments that count, and settings. A file of moments is complete on the disk
    before one transaction names it, and goes after a transaction has forgotten it: a kill leaves
    the state before or after a change, and a file at most that nothing names, which the next writer
    removes. One writer works at a time; readers do not wait for it.

    Objects may be shared by threads, and not by forked processes.

    Args:
        folder (str | Path): The library, see `create`.
        readonly (bool): Refuse changes. Defaults to False.

    Attributes:
        folder (Path): The library.
        readonly (bool): Whether changes are refused.

    Raises:
        UserError: If the folder is no library, or one of a newer format.
    """

    def __init__(self, folder: str | Path, readonly: bool = False) -> None:
        self.folder, self.readonly = Path(folder), readonly
        self._lock = threading.RLock()
        self._reading = database.connect_reading(self.folder)
        self._version, self._snapshot = None, None
        self._segments: dict[int, Segment] = {}

    @classmethod
    def create(cls, folder: str | Path, dtype: str = 'float16') -> 'FolderStore':
        """Make an empty library.

        Args:
            folder (str | Path): Does not exist, or holds nothing but ``model/`` and what an earlier
                try has left.
            dtype (str): What coordinates are rounded to, ``float16`` or ``float32``. Defaults to
                ``float16``.

        Raises:
            UserError: If it is a library, holds something else, or cannot be written.
        """
        folder = Path(folder)
        with database.plain_failures(folder), FileLock(folder / database.NAME):
            if (folder / database.NAME).exists():
                raise InputError(f'{folder} is a library already')
            names = {path.name for path in folder.iterdir()}
            foreign = names - {
                'model',
                'segments',
                f'{database.NAME}.lock',
                f'{database.NAME}.part',
            }
            if foreign:
                raise InputError(
                    f'{folder} is no library and not empty (it has {min(foreign)!r}): name a new '
                    'folder'
                )
            (folder / 'segments').mkdir(exist_ok=True)
            database.create_database(folder, dtype=dtype)
            _sync(folder)
        return cls(folder)

    def close(self) -> None:
        """Close the database; snapshots remain usable."""
        self._reading.close()

    # ---------------------------------------------------------------- reading

    def snapshot(self) -> Snapshot:
        """The library as it is now; the same object as long as nothing changes.

        Raises:
            UserError: If a file of moments is damaged, or gone.
        """
        with self._lock, database.plain_failures(self.folder):
            gone = None
            while self._snapshot is None or self.changed():
                try:
                    self._read()
                except MissingFileError as error:
                    # `compact` has put another one in its place since the list was read, unless the
                    # next list names it again: a number is never used twice.
                    if str(error) == gone:
                        raise
                    gone = str(error)
            return self._snapshot

    def changed(self) -> bool:
        """Whether `snapshot` would be another one than the last; never waits for a writer."""
        with self._lock:
            self._reading.execute('PRAGMA busy_timeout = 0')
            try:
                return self._reading.execute('PRAGMA data_version').fetchone() != self._version
            except sqlite3.OperationalError as error:
                if 'locked' in str(error):  # a change is being committed
                    return self._snapshot is None
                raise
            finally:
                self._reading.execute('PRAGMA busy_timeout = 30000')

    def _read(self) -> None:
        """Read the lists in one transaction, and open the segments that are new."""
        with self._transaction(self._reading, 'DEFERRED') as connection:
            listed = connection.execute('SELECT number, rows FROM segments ORDER BY 1').fetchall()
            rows = connection.execute(
                'SELECT number, id, path, folder, duration, changed, meta, segment, first_row, '
                'moments FROM videos ORDER BY segment, first_row, number'
            ).fetchall()
            version = connection.execute('PRAGMA data_version').fetchone()
        opened = {}
        for number, count in listed:
            segment = opened[number] = self._segments.get(number) or Segment(self._path(number))
            if segment.rows != count:
                raise InputError(f'{segment.path} has {segment.rows} moments, not {count}')
        videos = {row[0]: VideoRow._make(row) for row in rows}
        owners = {number: np.full(s.rows, -1, np.int32) for number, s in opened.items()}
        for video in videos.values():
            if video.segment is not None:
                stop = video.first_row + video.moments
                owners[video.segment][video.first_row : stop] = video.number
        self._segments, self._version = opened, version
        self._snapshot = Snapshot(list(opened.values()), list(owners.values()), videos)

    def select(self, where: str | None = None, video_ids: Iterable[str] | None = None) -> set[int]:
        """Numbers of the videos that a filter keeps.

        Args:
            where (str | None): An expression of SQL over the columns ``id``, ``path``, ``folder``,
                ``duration`` (seconds), ``modified`` (as in ``2026-01-31T23:59:59``, UTC),
                ``moments`` and ``meta`` (JSON, as in ``meta ->> 'camera' = 2``), which may call
                some functions. Defaults to None: all.
            video_ids (Iterable[str] | None): Only these. Defaults to None: all.

        Raises:
            InputError: If the expression cannot be used, or an id is not in the library.
        """
        with database.plain_failures(self.folder):
            with closing(database.connect_reading(self.folder)) as connection:
                numbers = None
                if video_ids is not None:
                    known = database.known_videos(connection, wanted := dict.fromkeys(video_ids))
                    if missing := [video_id for video_id in wanted if video_id not in known]:
                        raise InputError(f'{self.folder} has no {_listed(missing)}')
                    numbers = set(known.values())
                    if where is None:
                        return numbers
                found = database.filter_videos(connection, '1' if where is None else where)
            return found if numbers is None else found & numbers

    def get(self, key: str, default: Any = None) -> Any:
        """A setting, else `default`."""
        with self._lock, database.plain_failures(self.folder):
            return database.setting(self._reading, self.folder, key, default)

    def info(self) -> dict:
        """Sizes and shares.

        Returns:
            dict: ``videos``, ``moments``, ``removed_moments`` (whose rows `compact` frees),
            ``segments``, ``hours`` of video, ``bytes`` of all files but the model's,
            ``bytes_per_moment``, ``bytes_per_hour`` (None of nothing), ``dtype``, ``spaces``
            (widths), and ``spectrum``, see `Snapshot`.
        """
        snapshot = self.snapshot()
        rows = sum(segment.rows for segment in snapshot.segments)
        size = sum(segment.size for segment in snapshot.segments)
        size += (self.folder / database.NAME).stat().st_size
        hours = math.fsum(video.duration for video in snapshot.videos.values()) / 3600
        return dict(
            videos=len(snapshot.videos),
            moments=snapshot.moments,
            removed_moments=rows - snapshot.moments,
            segments=len(snapshot.segments),
            hours=hours,
            bytes=size,
            bytes_per_moment=size / snapshot.moments if snapshot.moments else None,
            bytes_per_hour=size / hours if hours else None,
            dtype=self.get('dtype'),
            spaces=self.get('spaces', {}),
            spectrum=snapshot.spectrum,
        )

    def verify(self) -> list[str]:
        """Compare everything that is stored with its checksums.

        Returns:
            list[str]: One line for each damage; it names the file and the block, and, of a file of
            moments, some of the videos in it, see `damaged`. Empty: there is none.
        """
        with (
            database.plain_failures(self.folder),
            closing(database.connect_reading(self.folder)) as connection,
        ):
            problems = database.damaged_rows(connection, self.folder)
            for found, ids in self._damages(connection):
                problems += [f'{text}; the videos in it: {_listed(ids)}' for text in found]
        return problems

    def damaged(self) -> list[str]:
        """Ids of the videos in files of moments that `verify` finds damaged."""
        with closing(database.connect_reading(self.folder)) as connection:
            return [video_id for _, ids in self._damages(connection) for video_id in ids]

    def _damages(self, connection) -> Iterator[tuple[list[str], list[str]]]:
        """What is wrong with each damaged file of moments, and the ids of its videos."""
        after = 'SELECT min(number) FROM segments WHERE number > ?'  # others may come meanwhile
        number = 0
        while (number := connection.execute(after, (number,)).fetchone()[0]) is not None:
            try:
                found = Segment(self._path(number)).verify()
            except UserError as error:
                found = [str(error)]
            if found:
                rows = connection.execute('SELECT id FROM videos WHERE segment = ?', (number,))
                if ids := [video_id for (video_id,) in rows]:  # else it has just been compacted
                    yield found, ids

    # ---------------------------------------------------------------- writing

    def add(self, videos: Sequence[StoredVideo], replace: bool = False) -> None:
        """Add videos, all or none.

        Their moments become one segment. Of 16 small segments of about one size one is made now and
        then, so that a library does not fall into pieces where videos come one by one.

        Args:
            videos (Sequence[StoredVideo]): Any number. The first ones decide which spaces the
                library has, and their widths.
            replace (bool): Put videos in the place of those of the same id. Defaults to False.

        Raises:
            UserError: If an id is there already, or twice, a video cannot be stored, or the library
                cannot be written.
        """
        checked = check_videos(videos, self.get('dtype'))
        ids = [video.video_id for video in videos]
        with self._writing() as connection:
            known = database.known_videos(connection, ids)
            if known and not replace:
                raise InputError(
                    f'{self.folder} has {_listed(list(known))} already: update what is there, or '
                    'give the new ones other ids'
                )
            spaces = self._common_spaces(ids, checked)
            number = database.next_segment(connection)
            if rows := sum(len(moments.spans) for moments in checked):
                with self._new_segment(number) as path:
                    write_videos(path, checked, self.get('dtype'), self._axes_for(connection, rows))
            with self._transaction(connection):
                database.delete_videos(connection, known.values())
                if rows:
                    database.insert(connection, 'segments', number, rows)
                    database.put_setting(connection, 'spaces', spaces)
                row = 0
                for video, moments in zip(videos, checked, strict=True):
                    count = len(moments.spans)
                    place = (number if count else None, row, count)
                    database.insert(connection, 'videos', *_columns(video), *place)
                    row += count
            with suppress(UserError, OSError, sqlite3.Error):  # the videos are there, and whoever
                self._merge(connection)  # adds next will try again

    def remove(self, video_ids: Iterable[str]) -> int:
        """Remove videos; ids that the library does not have are passed over.

        Returns:
            int: How many there were. `compact` frees their space.
        """
        with self._writing() as connection, self._transaction(connection):
            known = database.known_videos(connection, video_ids)
            database.delete_videos(connection, known.values())
        return len(known)

    def compact(self) -> None:
        """Make one segment of all, without the moments of removed videos, with a new rotation.

        Needs the space of the result, beside the library, until it ends. Vectors are rounded once
        more. Nothing happens where there is nothing to gain.

        Raises:
            UserError: If a file of moments is damaged, or the library cannot be written.
        """
        with self._writing() as connection:
            snapshot = self.snapshot()
            whole = len(snapshot.segments) == 1 and snapshot.allowed() is None
            if snapshot.segments and not (whole and snapshot.segments[0].own_rotation):
                self._rewrite(connection, set(self._segments))

    def set(self, key: str, value: Any) -> None:
        """Keep a setting, any value that JSON can hold."""
        with self._writing() as connection, self._transaction(connection):
            database.put_setting(connection, key, value)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A connection of the only writer; what earlier ones have left is removed."""
        if self.readonly:
            raise OutputError(f'{self.folder} was opened for reading')
        with database.plain_failures(self.folder):
            (self.folder / 'segments').mkdir(exist_ok=True)
            lock = FileLock(self.folder / database.NAME, _PATIENCE)
            with lock, closing(database.connect_writing(self.folder)) as connection:
                try:
                    self._remove_unnamed(connection)
                    yield connection
                finally:
                    with suppress(sqlite3.Error, OSError):
                        self._remove_unnamed(connection)

    @staticmethod
    @contextmanager
    def _transaction(
        connection: sqlite3.Connection, kind: str = 'IMMEDIATE'
    ) -> Iterator[sqlite3.Connection]:
        connection.execute(f'BEGIN {kind}')
        try:
            yield connection
            connection.execute('COMMIT')
        finally:
            if connection.in_transaction:
                connection.execute('ROLLBACK')

    def _remove_unnamed(self, connection: sqlite3.Connection) -> None:
        """Remove the files of moments that the library does not name."""
        named = {self._path(n) for (n,) in connection.execute('SELECT number FROM segments')}
        for path in (self.folder / 'segments').iterdir():
            if path not in named and path.suffix in ('.moments', '.part'):
                path.unlink()

    def _common_spaces(self, ids: list[str], checked: list[Moments]) -> dict[str, int]:
        """Spaces and widths of the library and all these videos that have moments."""
        spaces = self.get('spaces')
        for video_id, moments in zip(ids, checked, strict=True):
            widths = moments.widths
            if len(moments.spans) and widths != (spaces := spaces or widths):
                raise InputError(
                    f'video {video_id!r} has the spaces {widths}, and {self.folder} {spaces}: '
                    'videos of one library are encoded by one model'
                )
        return spaces

    def _path(self, number: int) -> Path:
        return self.folder / 'segments' / f'{number:08d}.moments'

    @contextmanager
    def _new_segment(self, number: int) -> Iterator[Path]:
        """Where to write a segment, which has its name, on the disk, afterwards."""
        path = self._path(number)
        with replacing(path) as unfinished:
            yield unfinished
        _sync(path.parent)

    def _axes_for(self, connection, rows: int) -> AxesOf | None:
        """Those of the largest segment for fewer moments than it has, if these are few."""
        largest = connection.execute('SELECT number, rows FROM segments ORDER BY 2 DESC').fetchone()
        if largest is not None and rows < min(_OWN_ROTATION_ROWS, largest[1]):
            with suppress(UserError):
                segment = Segment(self._path(largest[0]))
                if not segment.verify('rotation of '):
                    return segment.axes
        return None

    def _merge(self, connection) -> None:
        """Make one segment of small ones of about one size, if there are so many."""
        sizes: dict[int, dict[int, int]] = {}
        for number, rows in connection.execute('SELECT number, rows FROM segments ORDER BY 1'):
            if rows < _MERGED_ROWS:
                sizes.setdefault(int(math.log(rows, _MERGED)), {})[number] = rows
        for found in sizes.values():
            if len(found) >= _MERGED:
                axes = self._axes_for(connection, sum(found.values()))
                return self._rewrite(connection, set(found), axes)

    def _rewrite(self, connection, numbers: Collection[int], axes: AxesOf | None = None) -> None:
        """Put the moments of some segments into a new one, of these axes or its own."""
        snapshot, number = self.snapshot(), database.next_segment(connection)
        sources, starts, count = [], {}, 0
        segments = zip(self._segments, snapshot.segments, snapshot.video_of_row, strict=True)
        for source, segment, owners in segments:
            if source in numbers:
                rows = np.flatnonzero(owners >= 0)
                starts[source] = count, rows
                sources.append((segment, rows))
                count += len(rows)
        with self._new_segment(number) as path:
            write_merged(path, sources, self.get('dtype'), axes)
        moved = []
        for video in snapshot.videos.values():
            if video.segment in starts:
                start, rows = starts[video.segment]
                row = start + int(np.searchsorted(rows, video.first_row))
                moved.append(video._replace(segment=number, first_row=row))
        with self._transaction(connection):
            database.insert(connection, 'segments', number, count)
            database.move_videos(connection, moved)


def _columns(video: StoredVideo) -> tuple:
    modified = None if video.modified is None else float(video.modified)
    named = video.video_id, printable(video.path), printable(video.folder)
    return *named, float(video.duration), modified, json.dumps(video.meta)


def _listed(ids: list[str]) -> str:
    more = f' and {len(ids) - 3} more' if ids[3:] else ''
    return ', '.join(map(repr, ids[:3])) + more


def _sync(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
