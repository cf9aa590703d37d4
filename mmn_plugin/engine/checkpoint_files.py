"""How checkpoints are written, and found again; whose training a work folder holds."""

import contextlib
import datetime
import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer

from mmn_plugin.errors import InputError, OperationError, UserError
from mmn_plugin.files import write_json
from mmn_plugin.locks import FileInUseError, FileLock


class CheckpointWriteError(UserError, OSError):
    """A file could not be written; the message says which, why, and what is still there."""


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


class AtomicLocalBackend(LocalBackend):
    """``LocalBackend`` whose files are never there in part.

    ``CheckpointHook(backend_args=dict(backend='AtomicLocalBackend'))`` makes MMEngine write with
    it; `SafeCheckpointHook` does so by itself.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see `write_atomically`."""
        write_atomically(obj, filepath)


register_backend('AtomicLocalBackend', AtomicLocalBackend, force=True)


_NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


def newest_checkpoint(
    folder: str | Path, warn: Callable[[str], None], record: dict | None = None
) -> Path | None:
    """The newest complete checkpoint of a work folder.

    That is the one ``last_checkpoint`` names, or a further one written since (a run may end between
    the two). Where it is absent or damaged it is the one written last of those that are complete.

    Args:
        folder (str | Path): Work folder.
        warn (Callable): Gets one message for every file that is passed over.
        record (dict, optional): That of the folder's last training (`TrainingRecord`). Where it
            has a ``run``, checkpoints of other trainings are passed over, but for the one that it
            was ``resumed_from``. Defaults to None.

    Returns:
        Path | None: None where there is no complete one.
    """
    folder = Path(folder)
    named = _named(folder)
    files = [
        path
        for path in folder.glob('*.pth')
        if path.is_file() and not path.name.startswith('best_')
    ]
    if named is not None and named.is_file() and named not in files:
        files.append(named)
    elif named is not None and not named.is_file():
        warn(f'{folder / "last_checkpoint"} names {named}, which is not there')
        named = None
    if record and 'run' in record:
        files = _of_training(files, record, warn)
        named = named if named in files else None
    files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    if named is not None:
        since = files[: files.index(named)]
        rest = [path for path in files if path != named and path not in since]
        done = {path: _meta(path).get('iter', -1) for path in [*since, named]}
        further = [path for path in since if done[path] > done[named]]
        files = [*further, named, *rest, *(path for path in since if path not in further)]
    for path in files:
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
    missing = [name for name in _NEEDED if not isinstance(content, dict) or name not in content]
    return f'it holds no {" and no ".join(missing)} to resume from' if missing else None


def _of_training(files: list[Path], record: dict, warn: Callable[[str], None]) -> list[Path]:
    """Files that the last training in the folder has written, or was resumed from."""
    source = Path(record.get('resumed_from') or '')
    kept = [source] if source.is_file() else []
    for path in files:
        meta = _meta(path)
        if (not meta or meta.get('run_id') == record['run']) and path not in kept:
            kept.append(path)
        elif path not in kept:
            warn(
                f'{path} is passed over: it is of another training than the last one in this '
                f'folder, which began {record.get("began")}; --resume PATH would take it'
            )
    return kept


def _load(path: Path) -> dict:
    # mmap: the tensors stay on the disk
    return torch.load(path, map_location='cpu', weights_only=True, mmap=True)


def _meta(path: Path) -> dict:
    """Empty of a file that cannot be read; `damage` says why."""
    try:
        return dict(_load(path)['meta'])
    except Exception:  # a damaged file fails in many ways
        return {}


def _named(folder: Path) -> Path | None:
    """The file that ``last_checkpoint`` names, also where the work folder was moved since."""
    try:
        text = (folder / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text:
        return None
    moved = folder / Path(text).name
    return moved if moved.is_file() or not Path(text).is_file() else Path(text)


_PLAIN = (str, bytes, int, float, bool, type(None))
_HISTORY = {'log_history', 'count_history', 'max_length'}  # arguments of HistoryBuffer


def plain(value, owner: str):
    """A copy on the CPU of what ``weights_only`` loading accepts.

    Args:
        value: Tensors, arrays, numbers, strings, and lists, tuples and dicts of them.
        owner (str): Whose it is, for the message.

    Raises:
        TypeError: If the value is of another kind; the message names its owner.
    """
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray | np.generic):
        return torch.from_numpy(np.asarray(value).copy()) if value.ndim else value.item()
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
    """Replace what MMEngine puts beside the weights by plain data.

    Its log histories become dicts of their arguments; arrays become tensors. What a hook of
    another origin has added, and has no plain form, stays.

    Args:
        checkpoint (dict): About to be saved.
    """
    hub = checkpoint.get('message_hub', {})
    if 'log_scalars' in hub:
        hub['log_scalars'] = {
            name: dict(
                log_history=torch.tensor(history.data[0]),
                count_history=torch.tensor(history.data[1]),
                max_length=history.max_length,
            )
            if isinstance(history, HistoryBuffer)
            else history
            for name, history in hub['log_scalars'].items()
        }
    for part in (hub, checkpoint.get('meta', {})):
        for name, value in part.items():
            try:
                part[name] = plain(value, name)
            except InputError:
                continue


def restore_histories(checkpoint: dict) -> None:
    """Give MMEngine its log histories back; they may also be its own still.

    Args:
        checkpoint (dict): Loaded.
    """
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, value in scalars.items():
        if isinstance(value, dict) and value.keys() == _HISTORY:
            scalars[name] = HistoryBuffer(
                **{
                    part: given.cpu().numpy() if torch.is_tensor(given) else given
                    for part, given in value.items()
                }
            )


_locks: dict[Path, FileLock] = {}  # of this process, by the file that they are for


class WorkFolderInUseError(OperationError):
    """Another process trains in the work folder; the message says which."""


class TrainingRecord:
    """``training.json`` of a work folder: which training its checkpoints are of.

    The process that trains has a `FileLock` on the file, which ends with the process however that
    ends. The file itself stays.

    Args:
        folder (str | Path): Work folder.

    Attributes:
        NAME (str): Of the file.
    """

    NAME = 'training.json'

    def __init__(self, folder: str | Path):
        self._path = Path(folder).resolve() / self.NAME

    def require_unused(self) -> None:
        """Make sure that no other process trains in the folder.

        Raises:
            WorkFolderInUseError: If one does.
        """
        if self._path not in _locks and self._path.with_name(f'{self.NAME}.lock').exists():
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
        if self._path in _locks:
            return None
        lock = FileLock(self._path)
        try:
            reason = lock.acquire()
        except FileInUseError as error:
            raise WorkFolderInUseError(
                f'another training is in the work folder: {error} (--work-dir)'
            ) from None
        _locks[self._path] = lock
        return reason

    def release(self) -> None:
        """Let others train there."""
        if self._path in _locks:
            _locks.pop(self._path).release()

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
        record = dict(run=run, resumed_from=resumed_from, began=began)
        write_json(record, self._path)
