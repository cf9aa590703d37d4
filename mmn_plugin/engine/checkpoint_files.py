"""How checkpoints are written, and found again; whose training a work folder holds."""

import datetime
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer

from mmn_plugin.errors import InputError, OperationError, UserError
from mmn_plugin.files import replacing, write_json
from mmn_plugin.locks import FileInUseError, FileLock


class CheckpointWriteError(UserError, OSError):
    """A file could not be written; the message says which, why, and what is still there."""


def write_durably(content: bytes | memoryview, path: str | Path) -> None:
    """Write a file that appears when it is complete (see `replacing`) and on the disk.

    A process killed, or a machine stopped, at any moment leaves the old file or the new one.

    Raises:
        CheckpointWriteError: If the file cannot be written; what was there before still is.
    """
    path = Path(path)
    try:
        with replacing(path) as unfinished, open(unfinished, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        free = ''
        with suppress(OSError):
            free = f'; {shutil.disk_usage(path.parent).free / 1e6:.1f} MB are free'
        raise CheckpointWriteError(
            f'{path} ({len(content) / 1e6:.1f} MB) cannot be written: '
            f'{os.strerror(error.errno or 0)}{free}. Files written earlier are untouched: make '
            'room, or name another folder (--work-dir), and run again with --resume'
        ) from error
    with suppress(OSError):  # the new name too, where the file system has that notion
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class AtomicLocalBackend(LocalBackend):
    """``LocalBackend`` whose files are never there in part; `SafeCheckpointHook` writes with it."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see `write_durably`."""
        write_durably(obj, filepath)


register_backend('AtomicLocalBackend', AtomicLocalBackend, force=True)


def newest_checkpoint(
    folder: str | Path, warn: Callable[[str], None], record: dict | None = None
) -> Path | None:
    """The complete checkpoint of a work folder with the most iterations.

    Candidates are the folder's own, and the one that ``last_checkpoint`` names elsewhere.

    Args:
        folder (str | Path): Work folder.
        warn (Callable): Gets one message for every file that is passed over.
        record (dict, optional): That of the folder's last training (`TrainingRecord`). Checkpoints
            of other trainings are passed over, but for the one that it was ``resumed_from``.
            Defaults to None.

    Returns:
        Path | None: None where there is no complete one.
    """
    folder, record = Path(folder), record or {}
    files = {path for path in folder.glob('*.pth') if not path.name.startswith('best_')}
    with suppress(OSError, UnicodeDecodeError):
        named = Path((folder / 'last_checkpoint').read_text().strip())
        if named.is_file() and not (folder / named.name).is_file():
            files.add(named)
    source = Path(record.get('resumed_from') or '')
    if source.is_file():
        files.add(source)
    metas = {path: _meta(path) for path in files}

    def age(path: Path) -> tuple[float, int]:
        return metas[path].get('iter', math.inf), path.stat().st_mtime_ns

    for path in sorted(files, key=age, reverse=True):
        other = 'run' in record and metas[path].get('run_id', record['run']) != record['run']
        if other and path != source:
            reason = (
                'it is of another training than the last one in this folder, which began '
                f'{record.get("began")}; --resume PATH would take it'
            )
        else:
            reason = damage(path)
        if reason is None:
            return path
        warn(f'{path} is passed over: {reason}')
    return None


def damage(path: str | Path) -> str | None:
    """Why a run cannot be resumed from a file, or None; the whole file is read.

    PyTorch's files are zip archives with a checksum for every part.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            return f'it is damaged ({broken} fails its checksum)'
        content = _load(path)
    except zipfile.BadZipFile:
        return f'it is incomplete or no checkpoint ({Path(path).stat().st_size:,} bytes)'
    except Exception as error:  # a damaged file fails in many ways
        reason = str(error).split('\n', 1)[0]
        return f'it cannot be read ({reason})'
    needed = ('meta', 'state_dict', 'message_hub', 'optimizer')
    missing = [name for name in needed if not isinstance(content, dict) or name not in content]
    return f'it holds no {" and no ".join(missing)} to resume from' if missing else None


def _load(path: str | Path) -> dict:
    # mmap: the tensors stay on the disk
    return torch.load(path, map_location='cpu', weights_only=True, mmap=True)


def _meta(path: Path) -> dict:
    """Empty of a file that cannot be read; `damage` says why."""
    try:
        return dict(_load(path)['meta'])
    except Exception:  # a damaged file fails in many ways
        return {}


_PLAIN = (str, bytes, int, float, bool, type(None))
_HISTORY = ('log_history', 'count_history', 'max_length')  # arguments of HistoryBuffer


def plain(value, owner: str):
    """A copy on the CPU of what ``weights_only`` loading accepts.

    Args:
        value: Tensors, arrays, numbers, strings, MMEngine's log histories, and lists, tuples and
            dicts of them.
        owner (str): Whose it is, for the message.

    Raises:
        ValueError: If the value is of another kind; the message names its owner.
    """
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.asarray(value).copy()) if value.ndim else value.item()
    if isinstance(value, HistoryBuffer):
        parts = (*map(torch.tensor, value.data), value.max_length)
        return dict(zip(_HISTORY, parts, strict=True))
    if isinstance(value, dict):
        return {plain(k, owner): plain(v, owner) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v, owner) for v in value)
    if type(value) in _PLAIN:
        return value
    raise InputError(
        f'{owner} holds a {type(value).__name__}; a checkpoint holds tensors, numbers, '
        'strings, lists, tuples and dicts'
    )


def make_plain(checkpoint: dict) -> None:
    """Replace what MMEngine puts beside the weights by plain data, before it is saved.

    What a hook of another origin has added, and has no plain form, stays.
    """
    for part in (checkpoint.get('message_hub', {}), checkpoint.get('meta', {})):
        for name, value in part.items():
            with suppress(InputError):
                part[name] = plain(value, name)


def restore_histories(checkpoint: dict) -> None:
    """Give MMEngine the log histories of a loaded checkpoint back, unless they are its own."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, value in scalars.items():
        if isinstance(value, dict):
            log, count, longest = (value[part] for part in _HISTORY)
            scalars[name] = HistoryBuffer(log.cpu().numpy(), count.cpu().numpy(), longest)


_lock_of = cache(FileLock)  # one for all records of a folder in this process


class WorkFolderInUseError(OperationError):
    """Another process trains in the work folder; the message says which."""


class TrainingRecord:
    """``training.json`` of a work folder: which training its checkpoints are of.

    The process that trains has a `FileLock` on the file, which ends with the process however that
    ends. The file itself stays.

    Args:
        folder (str | Path): Work folder.
    """

    def __init__(self, folder: str | Path):
        self._path = Path(folder).resolve() / 'training.json'
        self._lock = _lock_of(self._path)

    def require_unused(self) -> None:
        """Make sure that no other process trains in the folder.

        Raises:
            WorkFolderInUseError: If one does.
        """
        if not self._lock.held and self._path.with_name('training.json.lock').exists():
            self.acquire()
            self.release()

    def acquire(self) -> str | None:
        """Lock the folder for this process, until `release`; nothing where it has it already.

        Returns:
            str | None: Why the file system cannot lock, else None.

        Raises:
            WorkFolderInUseError: If another process trains there.
            OSError: If the file cannot be made.
        """
        try:
            return self._lock.acquire()
        except FileInUseError as error:
            raise WorkFolderInUseError(
                f'another training is in the work folder: {error} (--work-dir)'
            ) from None

    def release(self) -> None:
        """Let others train there."""
        self._lock.release()

    def read(self) -> dict:
        """What the last training wrote; empty where none has, or it cannot be read."""
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, run: str, resumed_from: str | None = None) -> None:
        """Note this training.

        Args:
            run (str): Identity of the training, which its checkpoints have as well (``run_id``).
            resumed_from (str, optional): Checkpoint of another one that it goes on from. Defaults
                to None.
        """
        began = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
        write_json(dict(run=run, resumed_from=resumed_from, began=began), self._path)
