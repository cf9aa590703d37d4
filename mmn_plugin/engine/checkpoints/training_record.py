"""One training at a time in a work folder, and whose its checkpoints are."""

import contextlib
import datetime
import json
import os
import socket
from pathlib import Path
from typing import IO

from mmn_plugin.files import lock_file

# A process's lock of a file ends when it closes any handle of it, so there is one for each.
_held: dict[Path, IO] = {}


class WorkFolderInUseError(RuntimeError):
    """Another process trains in the work folder; the message says which."""


class TrainingRecord:
    """``training.json`` of a work folder: which training it belongs to.

    The process that trains has a lock of the operating system on the file, which ends with the
    process however that ends, and which other machines see where their common file system has
    locks. Processes that it starts do not inherit it. The file stays, and says which checkpoints
    are the last training's.

    Args:
        folder (str | Path): Work folder.

    Attributes:
        NAME (str): Of the file.
    """

    NAME = 'training.json'

    def __init__(self, folder: str | Path):
        self._path = Path(folder).resolve() / self.NAME

    def require_unused(self) -> None:
        """Make sure that no other process trains in the folder; changes nothing there.

        Raises:
            WorkFolderInUseError: If one does.
        """
        if self._path in _held or not self._path.is_file():
            return
        with contextlib.suppress(FileNotFoundError), open(self._path, 'rb') as file:
            self._lock(file, shared=True)

    def acquire(self) -> str | None:
        """Lock the folder for this process, until `release`; nothing where it has it already.

        Returns:
            str | None: Why the file system cannot lock, else None.

        Raises:
            WorkFolderInUseError: If another process trains there.
            OSError: If the file cannot be made.
        """
        if self._path in _held:
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), 'r+b', buffering=0)
        try:
            reason = self._lock(file)
        except WorkFolderInUseError:
            file.close()
            raise
        _held[self._path] = file
        return reason

    def release(self) -> None:
        """Let others train there."""
        file = _held.pop(self._path, None)
        if file is not None:
            file.close()

    def read(self) -> dict:
        """What the last training wrote; empty where none has, or it cannot be read."""
        try:
            file = _held.get(self._path)
            if file is None:
                content = json.loads(self._path.read_bytes())
            else:
                file.seek(0)
                content = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, run: str, resumed_from: str | None = None) -> None:
        """Note this training; the folder must be locked.

        Args:
            run (str): Identity of the training, which its checkpoints have as well (``run_id``).
            resumed_from (str, optional): Checkpoint of another one that it goes on from. Defaults
                to None.
        """
        began = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
        text = json.dumps(
            dict(
                run=run,
                resumed_from=resumed_from,
                host=socket.gethostname(),
                process=os.getpid(),
                began=began,
            ),
            indent=1,
        ).encode()
        file = _held.get(self._path)
        if file is not None:
            file.seek(0)
            file.write(text)  # in place: the lock is on this very file
            file.truncate()
            os.fsync(file.fileno())

    def _lock(self, file: IO, shared: bool = False) -> str | None:
        try:
            return lock_file(file, shared)
        except BlockingIOError:
            raise WorkFolderInUseError(self._holder()) from None

    def _holder(self) -> str:
        content = self.read()
        who = 'another process trains there'
        if {'host', 'process', 'began'} <= content.keys():
            who = (
                f'process {content["process"]} on {content["host"]} trains there, since '
                f'{content["began"]}'
            )
        return (
            f'the work folder {self._path.parent} is in use: {who}. Let it end, or choose '
            'another folder (--work-dir)'
        )
