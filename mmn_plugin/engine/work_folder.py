"""What a work folder knows of the trainings in it."""

import ast
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

from mmn_plugin.errors import OperationError
from mmn_plugin.files import write_atomically
from mmn_plugin.locks import FileInUseError, FileLock

_OF_THE_START = ('work_dir', 'resume', 'load_from', 'launcher', 'experiment_name')
# A checkpoint brings the optimizer's and the schedulers' state, of which these are a part.
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
        write_atomically(self._path, json.dumps(record, indent=1) + '\n')
