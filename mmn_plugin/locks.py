"""Locks of the operating system on files."""

import datetime
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from mmn_plugin.errors import OperationError

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None

PATIENCE = 1.0  # seconds of waiting for a lock: another process may be looking just now


class FileInUseError(OperationError):
    """Another process, or thread, has the lock; the message says which."""


class FileLock:
    """Only one may work on a file, or folder; a context manager.

    A lock of the operating system on ``<path>.lock``, which ends with the process however that
    ends, and which other machines see where their common file system has locks. The file goes when
    the lock is released. Processes that this one starts do not inherit it.

    Args:
        path (str | Path): What is worked on.
        patience (float): Seconds to wait for the lock. Defaults to `PATIENCE`.
    """

    _held: set[Path] = set()  # by this process, which the operating system would let in again
    _guard = threading.Lock()

    def __init__(self, path: str | Path, patience: float = PATIENCE) -> None:
        self._of, self._patience = Path(path), patience
        path = self._of.absolute()
        self._path = path.parent.resolve() / (path.name + '.lock')
        self._file: IO | None = None

    def acquire(self) -> str | None:
        """Take the lock; its folder is made.

        Returns:
            str | None: Why the file system cannot lock, else None.

        Raises:
            FileInUseError: If another one has it all the time.
            OSError: If the file cannot be made.
        """
        end = time.monotonic() + self._patience
        while not self._reserve():
            if time.monotonic() > end:
                raise FileInUseError(  # to open a lock's file and close it would end the lock
                    f'{self._of} is in use by another part of this process'
                )
            time.sleep(0.01)
        try:
            return self._lock(end)
        except BaseException:
            self._held.discard(self._path)
            raise

    def release(self) -> None:
        """Let others have it; nothing happens where it is not held."""
        if self._file is not None:
            with suppress(OSError):  # who waits for this very file will notice that it is gone
                self._path.unlink()
            self._file.close()
            self._file = None
            self._held.discard(self._path)

    def __enter__(self) -> 'FileLock':
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def _reserve(self) -> bool:
        with self._guard:
            free = self._path not in self._held
            self._held.add(self._path)
            return free

    def _lock(self, end: float) -> str | None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), 'r+b', 0)
            try:
                reason = lock_file(file, max(0.0, end - time.monotonic()))
            except BlockingIOError:
                file.close()
                raise FileInUseError(self._message()) from None
            if reason or _same_file(file, self._path):
                break
            file.close()  # released and removed since it was opened
        file.truncate(0)
        file.write(
            json.dumps(
                dict(
                    process=os.getpid(),
                    host=socket.gethostname(),
                    began=datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
                )
            ).encode()
        )
        self._file = file
        return reason

    def _message(self) -> str:
        who = 'another process'
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._path.read_bytes())
            who = f'process {found["process"]} on {found["host"]} since {found["began"]}'
        return f'{self._of} is in use by {who}. Let it end, or name another one'


def lock_file(file: IO, patience: float) -> str | None:
    """Lock an open file for this process, until it closes any handle of the file.

    Args:
        file (IO): Open for writing.
        patience (float): Seconds to wait.

    Returns:
        str | None: Why the file system cannot lock, else None.

    Raises:
        BlockingIOError: If another process has it all the time.
    """
    if fcntl is None:
        return 'this system has no such locks'
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except (BlockingIOError, PermissionError):
            if time.monotonic() > end:
                raise BlockingIOError('locked') from None
            time.sleep(0.01)
        except OSError as error:
            return error.strerror


def _same_file(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
