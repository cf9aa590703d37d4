"""Locks of the operating system on files."""

import datetime
import fcntl
import json
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

from mmn_plugin.errors import OperationError


class FileInUseError(OperationError):
    """Another process, or thread, has the lock; the message says which."""


_locked: weakref.WeakSet[IO] = weakref.WeakSet()  # a forked process would go on to hold them
os.register_at_fork(after_in_child=lambda: [file.close() for file in _locked])


class FileLock:
    """Only one may work on a file, or folder; a context manager.

    A lock of the operating system on ``<path>.lock``, which ends with the process however that
    ends, and which other machines see where their common file system has locks. The file goes when
    the lock is released. Processes that this one starts do not inherit it.

    Args:
        path (str | Path): What is worked on.
        patience (float): Seconds to wait for the lock. Defaults to 1: another process may be
            looking just now.
    """

    def __init__(self, path: str | Path, patience: float = 1.0) -> None:
        self._of, self._patience = Path(path), patience
        self._path = self._of.with_name(f'{self._of.name}.lock').absolute()
        self._file: IO | None = None

    @property
    def held(self) -> bool:
        """Whether this object has the lock; in a forked process it has not."""
        return self._file is not None and not self._file.closed

    def acquire(self) -> str | None:
        """Take the lock; its folder is made. Nothing happens where it is held.

        Returns:
            str | None: Why the file system cannot lock, else None.

        Raises:
            FileInUseError: If another one has it all the time.
            OSError: If the file cannot be made.
        """
        if self.held:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = None
        end, reason = time.monotonic() + self._patience, None
        while self._file is None:
            file = open(self._path, 'a+b', 0)  # noqa: SIM115  (closing it ends the lock)
            _locked.add(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                if time.monotonic() > end:
                    raise FileInUseError(self._message()) from None
                time.sleep(0.01)
                continue
            except OSError as error:
                reason = error.strerror
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self._path)):
                    self._file = file
            if self._file is None:  # it was released and removed since it was opened
                file.close()
        began = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
        owner = dict(process=os.getpid(), host=socket.gethostname(), began=began)
        file.truncate(0)
        file.write(json.dumps(owner).encode())
        return reason

    def release(self) -> None:
        """Let others have it; nothing happens where it is not held."""
        if self.held:
            with suppress(OSError):  # who waits for this very file will notice that it is gone
                self._path.unlink()
            self._file.close()
        self._file = None

    def __enter__(self) -> 'FileLock':
        self.acquire()
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def _message(self) -> str:
        who = 'another process'
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._path.read_bytes())
            who = f'process {found["process"]} on {found["host"]} since {found["began"]}'
        return f'{self._of} is in use by {who}. Let it end, or name another one'
