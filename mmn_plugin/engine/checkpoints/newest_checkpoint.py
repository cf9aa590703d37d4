"""Which checkpoint a run resumes from."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

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
        further = [path for path in since if _progress(path) > _progress(named)]
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
        try:
            run = _load(path)['meta'].get('run_id')
        except Exception:  # `damage` says how
            run = record['run']
        if run == record['run'] and path not in kept:
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


def _progress(path: Path) -> int:
    try:
        return int(_load(path)['meta']['iter'])
    except Exception:  # `damage` says how
        return -1


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
