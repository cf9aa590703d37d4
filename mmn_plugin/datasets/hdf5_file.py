"""Files that do not change while they are in use."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py


def file_version(path: str | Path) -> tuple[int, ...]:
    """Size, time of change in nanoseconds, and place on the disk of a file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def change_of(where: str | Path, path: Path | None, version: Sequence[int]) -> str | None:
    """Message on a file that is not of a version any more, or None.

    A moment's failure of the disk to tell is left to the read.

    Args:
        where (str | Path): What the message names.
        path (Path, optional): The file; None says that it is not there any more.
        version (Sequence[int]): What `file_version` gave.
    """
    how = 'removed'
    try:
        if path is not None and file_version(path) == tuple(version):
            return None
        how = 'removed' if path is None else 'replaced or changed'
    except FileNotFoundError:
        pass
    except OSError:
        return None
    return (
        f'{where} was {how} while it was in use: what was read before came from another '
        'version. Let the writing finish, and resume from a checkpoint that was saved before '
        'it, or train anew'
    )


def describe_folder(path: str | Path, limit: int = 10) -> str:
    """What lies in the nearest existing folder above a path, as one sentence for messages."""
    folder = Path(path).absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name + '/' * entry.is_dir() for entry in os.scandir(folder))
    if not names:
        return f'{folder} is empty'
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return f'{folder} holds {", ".join(names[:limit])}{more}'


class HDF5File:
    """An HDF5 file that several processes read.

    It is opened at the first read and stays open in that process. The handle belongs to the process
    that opened it: a forked worker opens its own, and a pickled copy carries none.

    Args:
        path (str | Path): The file.

    Attributes:
        version (tuple[int, ...]): What the file was when this was made, see `file_version`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.version = file_version(self.path)
        self._handle: h5py.File | None = None
        self._owner: int | None = None

    def file(self) -> h5py.File:
        """The open file."""
        if self._handle is None or self._owner != os.getpid():
            self._handle, self._owner = h5py.File(self.path, 'r'), os.getpid()
        return self._handle

    def close(self) -> None:
        """Close this process's handle; the next read opens the file again."""
        if self._handle is not None and self._owner == os.getpid():
            self._handle.close()
        self._handle = None

    def change(self, version: Sequence[int] | None = None) -> str | None:
        """Message on a file that is not of a version any more, by default its first; or None."""
        return change_of(self.path, self.path, version or self.version)

    def __getstate__(self) -> dict:
        return {**self.__dict__, '_handle': None, '_owner': None}
