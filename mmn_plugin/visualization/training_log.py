"""Scalars that MMEngine wrote during training."""

import json
from pathlib import Path


class TrainingLog:
    """All figures of a run, joined over its resumes.

    MMEngine gives every start a folder of its own in the work directory. Where a later start
    repeats steps of an earlier one, the later figures count.

    Args:
        path (str | Path): A work directory, one of its time-stamped folders, or a
            ``scalars.json``.

    Attributes:
        name (str): The work directory's name.
        curves (dict[str, dict[int, float]]): Figure -> step -> value. Steps of training are
            iterations; those of validation are epochs, if training counts them.
        by_epoch (bool): Whether training counts epochs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged or holds no figures.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        files = _files(path)
        if not files:
            raise FileNotFoundError(
                f'{path}: no vis_data/scalars.json below it; give a work '
                'directory of tools/train.py, or a scalars.json'
            )
        self.name = _name(path)
        self.by_epoch = False
        self.curves: dict[str, dict[int, float]] = {}
        for file in files:
            self._add(file)
        if not self.curves:
            raise ValueError(f'{path}: no figures have been written yet')

    def _add(self, file: Path) -> None:
        fresh: dict[str, dict[int, float]] = {}
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                step = int(entry['step'])
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f'{file}, line {number}: not a line of scalars as MMEngine '
                    'writes them; a run that was killed may leave half a line at the '
                    'end, which can be deleted'
                ) from None
            self.by_epoch |= 'epoch' in entry
            for key, value in entry.items():
                if key not in ('step', 'iter', 'epoch') and isinstance(value, int | float):
                    fresh.setdefault(key, {})[step] = float(value)
        for key, curve in fresh.items():
            # a start repeats all that came after the checkpoint that it went on from
            kept = {s: v for s, v in self.curves.get(key, {}).items() if s < min(curve)}
            self.curves[key] = kept | curve


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for pattern in ('*/vis_data/scalars.json', 'vis_data/scalars.json', 'scalars.json'):
        if files := sorted(path.glob(pattern)):
            return files
    return []


def _name(path: Path) -> str:
    """The folder's name; of a file, or of a time-stamped folder, that of the work directory."""
    parts = [part for part in path.resolve().parts if part not in ('vis_data', 'scalars.json')]
    while len(parts) > 1 and parts[-1].replace('_', '').isdigit():
        parts.pop()
    return parts[-1]
