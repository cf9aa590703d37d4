"""What a work folder knows of the trainings in it."""

import ast
import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mmn_plugin.errors import OperationError
from mmn_plugin.files import lock_file

_OF_THE_START = ('work_dir', 'resume', 'load_from', 'launcher', 'experiment_name')
# A checkpoint brings the optimiser's and the schedulers' state, of which these are a part.
_IN_THE_CHECKPOINT = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg.',
    'param_scheduler',
    'auto_scale_lr',
    'randomness.seed',
)
_ABSENT = 'not set'
_LONGEST = 60  # characters of a value


def changed_settings(before: str, now: str) -> list[str]:
    """Name every setting that differs between two configs.

    The configs are compared as text and never run.

    Args:
        before (str): Config of the checkpoint, as MMEngine stores it (``pretty_text``).
        now (str): Config of the run that resumes it.

    Returns:
        list[str]: For each setting both values, and which of the two counts; empty also where one
        of the configs cannot be read.
    """
    try:
        first, second = (dict(_settings(text)) for text in (before, now))
    except (SyntaxError, ValueError):
        return []
    names = [*second, *(name for name in first if name not in second)]
    changes = []
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in (first, second)]
        if values[0] != values[1] and name.partition('.')[0] not in _OF_THE_START:
            kept = name.startswith(_IN_THE_CHECKPOINT) and not name.endswith('.type')
            old, new = (
                value if len(value) <= _LONGEST else f'{value[:_LONGEST]}…' for value in values
            )
            changes.append(
                f'{name}: {old} in the checkpoint, {new} in this config; '
                f'{"the checkpoint" if kept else "this config"} counts'
            )
    return changes


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Dotted names and values, as source text, of a config's settings."""
    for line in ast.parse(text).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            yield from _leaves(line.targets[0].id, line.value)


def _leaves(name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        parts = [(entry.arg, entry.value) for entry in node.keywords]
    elif isinstance(node, ast.Dict):
        parts = [
            (key and str(ast.literal_eval(key)), value)
            for key, value in zip(node.keys, node.values, strict=True)
        ]
    elif isinstance(node, ast.List | ast.Tuple) and any(
        isinstance(entry, ast.Call | ast.Dict) for entry in node.elts
    ):
        parts = [(str(i), entry) for i, entry in enumerate(node.elts)]
    else:
        parts = []
    for key, value in parts:
        yield from _leaves(f'{name}.{key}' if key else name, value)  # **dict has no key
    if not parts:
        yield name, ast.unparse(node)


# A process's lock of a file ends when it closes any handle of it, so there is one for each.
_held: dict[Path, IO] = {}


class WorkFolderInUseError(OperationError):
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
