"""Files that are there whole, or as they were before."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from .checkpoint_write_error import CheckpointWriteError

PARTIAL = '.part'  # ending of a file that is being written

_ADVICE = {
    errno.ENOSPC: 'free some space',
    errno.EDQUOT: 'free some of your quota',
    errno.EROFS: 'make the folder writable, or set --work-dir',
    errno.EACCES: 'make the folder writable, or set --work-dir',
    errno.EPERM: 'make the folder writable, or set --work-dir',
}


def write_atomically(content: bytes | memoryview, path: str | Path) -> None:
    """Write a file so that at no moment there is a part of it under its name.

    The content goes to ``<path>.part`` and to the disk before the name is given to it, so a process
    killed, or a machine stopped, at any moment leaves the old file or the new one.

    Raises:
        CheckpointWriteError: If the file cannot be written; what was there before still is.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointWriteError(_explain(path, len(content), error)) from error


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk as well, where the file system has that notion."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explain(path: Path, size: int, error: OSError) -> str:
    free = ''
    with contextlib.suppress(OSError):
        free = f'; {shutil.disk_usage(path.parent).free / 1e6:.1f} MB are free'
    advice = _ADVICE.get(error.errno, 'look at the disk')
    return (
        f'{path} ({size / 1e6:.1f} MB) cannot be written: {os.strerror(error.errno or 0)}'
        f'{free}. Files written earlier are untouched: {advice}, and run again with --resume'
    )
