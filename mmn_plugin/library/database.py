"""The SQLite file of a library in a folder: opening, creating, checksums, filters, errors."""

import errno
import json
import re
import shutil
import sqlite3
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmn_plugin.errors import InputError, MissingFileError, OperationError
from mmn_plugin.files import OutputError, replacing

NAME = 'library.sqlite'
FORMAT = 1
COLUMNS = ('id', 'path', 'folder', 'duration', 'modified', 'moments', 'meta')  # for `select`
_APPLICATION = 0x4D4D4E4C
_SCHEMA = f"""
BEGIN;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, rows INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE videos (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, path TEXT NOT NULL,
    folder TEXT NOT NULL, duration REAL NOT NULL, changed REAL, meta TEXT NOT NULL,
    segment INTEGER, first_row INTEGER NOT NULL, moments INTEGER NOT NULL, crc INTEGER NOT NULL,
    modified TEXT GENERATED ALWAYS AS (strftime('%Y-%m-%dT%H:%M:%S', changed, 'unixepoch')));
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
_CHECKED = {  # columns of each table that the checksum of a row is of
    'settings': 'key, value',
    'segments': 'number, rows',
    'videos': 'id, path, folder, duration, changed, meta, segment, first_row, moments',
}
_FUNCTIONS = (  # none writes, or makes long texts
    *('abs', 'coalesce', 'date', 'datetime', 'glob', 'ifnull', 'iif', 'instr', 'json_extract'),
    *('julianday', 'length', 'like', 'lower', 'ltrim', 'max', 'min', 'nullif', 'round', 'rtrim'),
    *('strftime', 'substr', 'substring', 'time', 'trim', 'unixepoch', 'upper', '->', '->>'),
)
_FILTER_SECONDS = 2.0
# A commit is on the disk, so that no file of moments goes before the last list that names it.
_SYNCHRONOUS = 'EXTRA'
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_SELECT = re.compile(r'\bselect\b', re.IGNORECASE)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def plain_failures(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into one line for the user."""
    path = folder / NAME
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if 'full' in text or 'disk I/O' in text:
            raise _full(folder, text) from error
        if 'locked' in text:
            raise OperationError(f'{path} is in use by another process: try again') from error
        if 'readonly' in text or 'unable to open' in text:
            raise OutputError(f'{path} cannot be opened, or not be written: {text}') from error
        raise InputError(
            f'{path} is damaged ({text}): restore it from a copy, or make the library anew'
        ) from error
    except OSError as error:
        if error.errno in _FULL:
            raise _full(folder, error.strerror) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            where = error.filename or folder
            raise OutputError(f'{where} cannot be written: {error.strerror}') from error
        raise


def _full(folder: Path, reason: str) -> OperationError:
    return OperationError(
        f'the library {folder} could not be written ({reason}) and is as it was before: free some '
        'space and try again'
    )


def create_database(folder: Path, **settings: Any) -> None:
    """Write a database without videos, which appears when it is complete."""
    with replacing(folder / NAME) as unfinished:
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.execute(f'PRAGMA synchronous = {_SYNCHRONOUS}')
            connection.executescript(_SCHEMA)
            for key, value in settings.items():
                put_setting(connection, key, value)
            connection.commit()


def connect_writing(folder: Path) -> sqlite3.Connection:
    """A connection that commits to the disk, whose transactions begin and end by SQL.

    The journal is a file that is deleted to commit: a folder without other files of SQLite can be
    read where it cannot be written.
    """
    connection = _connect(folder / NAME, 'rw')
    connection.execute(f'PRAGMA synchronous = {_SYNCHRONOUS}')
    return connection


def connect_reading(folder: Path) -> sqlite3.Connection:
    """A connection that cannot write; what a killed writer left is undone before.

    Raises:
        UserError: If the folder is no library, or one of a newer format.
    """
    path = folder / NAME
    if not path.is_file():
        kind = 'there is no such folder' if not folder.exists() else f'it has no {NAME}'
        raise MissingFileError(f'{folder} is no library: {kind}. `mmn library add` makes one')
    with plain_failures(folder):
        try:
            return _checked(_connect(path, 'ro'), path)
        except sqlite3.OperationalError:
            with suppress(sqlite3.OperationalError), closing(_connect(path, 'rw')) as connection:
                connection.execute('SELECT count(*) FROM videos').fetchone()
                return _checked(_connect(path, 'ro'), path)
            return _checked(_undone_copy(path), path)


def _undone_copy(path: Path) -> sqlite3.Connection:
    """A copy in memory of a database whose writer was killed, where it cannot be written."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ('', '-journal'):
            with suppress(FileNotFoundError):
                shutil.copyfile(f'{path}{suffix}', Path(folder) / f'{NAME}{suffix}')
        with closing(_connect(Path(folder) / NAME, 'rw')) as copied:
            memory = sqlite3.connect(':memory:', isolation_level=None, check_same_thread=False)
            copied.backup(memory)
    return memory


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f'{path.absolute().as_uri()}?mode={mode}',
        uri=True,
        timeout=30,
        isolation_level=None,
        check_same_thread=False,
    )


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """The connection, if it is to a library that this version can read."""
    application, version = (
        connection.execute(f'PRAGMA {name}').fetchone()[0]
        for name in ('application_id', 'user_version')
    )
    if application != _APPLICATION:
        raise InputError(f'{path} is a database of something else: name the folder of a library')
    if version > FORMAT:
        raise InputError(
            f'{path.parent} has format {version}, and this version of mmn_plugin reads up to '
            f'{FORMAT}: update mmn_plugin'
        )
    return connection


def checksum(*values) -> int:
    """CRC-32 of a row's values."""
    return zlib.crc32(json.dumps(values).encode())


def insert(connection: sqlite3.Connection, table: str, *values) -> None:
    """Add a row with its checksum: the values of all columns of `_CHECKED`."""
    marks = ', '.join('?' * (len(values) + 1))
    connection.execute(
        f'INSERT INTO {table} ({_CHECKED[table]}, crc) VALUES ({marks})',
        (*values, checksum(*values)),
    )


def put_setting(connection: sqlite3.Connection, key: str, value: Any) -> None:
    """Keep a value that JSON can hold, in place of an earlier one."""
    connection.execute('DELETE FROM settings WHERE key = ?', (key,))
    insert(connection, 'settings', key, json.dumps(value))


def setting(connection: sqlite3.Connection, folder: Path, key: str, default: Any) -> Any:
    """A value that `put_setting` kept, else `default`.

    Raises:
        InputError: If it is damaged.
    """
    row = connection.execute('SELECT * FROM settings WHERE key = ?', (key,)).fetchone()
    if row is None:
        return default
    if checksum(*row[:2]) != row[2]:
        raise InputError(
            f'{folder / NAME}: the setting {key!r} is damaged: restore it from a copy, or make the '
            'library anew'
        )
    return json.loads(row[1])


def next_segment(connection: sqlite3.Connection) -> int:
    """Number of the next segment; none is ever that of another one."""
    (number,) = connection.execute(
        'SELECT max(number) + 1 FROM (SELECT 0 AS number UNION ALL SELECT number FROM segments '
        "UNION ALL SELECT seq FROM sqlite_sequence WHERE name = 'segments')"
    ).fetchone()
    return number


def move_videos(connection: sqlite3.Connection, rows: Iterable[tuple]) -> None:
    """Give videos other places: whole rows, with the number first."""
    connection.executemany(
        'UPDATE videos SET segment = ?, first_row = ?, crc = ? WHERE number = ?',
        [(*values[-3:-1], checksum(*values), number) for number, *values in rows],
    )
    _forget_segments(connection)


def delete_videos(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Forget videos, and segments that no other has moments in."""
    connection.executemany('DELETE FROM videos WHERE number = ?', [(n,) for n in numbers])
    _forget_segments(connection)


def _forget_segments(connection: sqlite3.Connection) -> None:
    connection.execute(
        'DELETE FROM segments WHERE NOT EXISTS '
        '(SELECT 1 FROM videos WHERE videos.segment = segments.number)'
    )


def known_videos(connection: sqlite3.Connection, video_ids: Iterable[str]) -> dict[str, int]:
    """Numbers of those of some videos that are there."""
    return dict(
        connection.execute(
            'SELECT id, number FROM videos WHERE id IN (SELECT value FROM json_each(?))',
            (json.dumps(list(video_ids)),),
        )
    )


def damaged_rows(connection: sqlite3.Connection, folder: Path) -> list[str]:
    """One line for each damage of the database: its structure, and rows against checksums."""
    path = folder / NAME
    found = [row[0] for row in connection.execute('PRAGMA integrity_check(20)')]
    problems = [] if found == ['ok'] else [f'{path}: {text}' for text in found]
    for table, columns in _CHECKED.items():
        for *values, crc in connection.execute(f'SELECT {columns}, crc FROM {table}'):
            if checksum(*values) != crc:
                problems.append(f'{path}: in {table} the row of {values[0]!r} is damaged')
    return problems


def filter_videos(connection: sqlite3.Connection, where: str) -> set[int]:
    """Numbers of the videos that an expression of SQL is true of.

    The expression comes from anyone. It may read `COLUMNS` of the table of videos and call some
    functions that neither write nor grow without bound; everything else is not authorized. The
    connection, which cannot write, serves nothing else afterwards.

    Raises:
        InputError: If the expression cannot be used, or takes more than 2 s.
    """
    selects = []

    def authorize(action, first, second, _database, _source):
        if action == sqlite3.SQLITE_SELECT:
            selects.append(action)
            allowed = len(selects) == 1  # ours
        elif action == sqlite3.SQLITE_READ:
            allowed = first == 'videos' and second in (*COLUMNS, 'number', 'changed', '')
        else:
            allowed = action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    if _SELECT.search(_QUOTED.sub('', where)):
        raise _refused(where, 'it has a SELECT of its own')
    end = time.monotonic() + _FILTER_SECONDS
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 50_000)
    connection.set_progress_handler(lambda: time.monotonic() > end, 1000)
    connection.set_authorizer(authorize)
    # What is an expression in both places is one expression, and no end of ours and a new clause.
    statement = f'SELECT number FROM videos WHERE (\n{where}\n) AND CASE WHEN\n{where}\nTHEN 1 END'
    try:
        return {number for (number,) in connection.execute(statement)}
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        late = time.monotonic() > end
        reason = f'it takes longer than {_FILTER_SECONDS:g} s' if late else str(error)
        raise _refused(where, reason) from None


def _refused(where: str, reason: str) -> InputError:
    shown = repr(where if len(where) <= 200 else f'{where[:200]}…')
    functions = f'; functions: {", ".join(_FUNCTIONS)}' if 'function' in reason else ''
    return InputError(
        f'the filter {shown} cannot be used: {reason}. It is one expression of SQL over the '
        f'columns {", ".join(COLUMNS)}, as in "folder = \'kitchen\' and duration < 600"{functions}'
    )
