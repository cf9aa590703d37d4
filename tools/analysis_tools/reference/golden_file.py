"""Golden files, and the comparison of a quantity with what they hold."""

import json
import tempfile
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.structures.annotations import VideoAnnotation, read_annotations

UNREADABLE = (BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)
ALONE = 'all'  # key of a quantity that is a single array


class GoldenFileError(InputError):
    """Raised if a golden file cannot be used; the message names the file and the key."""


class GoldenSettings(dict):
    """Settings that a file's figures were made with; absent keys are named with their file.

    Args:
        settings (dict): Content.
        path (Path): The file.
    """

    def __init__(self, settings: dict, path: Path):
        super().__init__(settings)
        self.path = path

    def __missing__(self, key: str):
        raise GoldenFileError(f'{self.path}: config_json has no setting {key!r}')


class GoldenFile:
    """Figures that the published code produced, as ``golden/README.md`` lays them out.

    Args:
        path (Path): The ``.npz`` file.

    Raises:
        GoldenFileError: If it is not a golden file, or of a layout this version does not know.
            So do all methods where an array is absent or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.arrays = np.load(path, allow_pickle=False)
        except UNREADABLE as error:
            raise GoldenFileError(
                f'{path} is not an .npz file of plain arrays, or it is damaged: {error}'
            ) from error
        if not isinstance(self.arrays, np.lib.npyio.NpzFile):
            raise GoldenFileError(f'{path} is not an .npz file but a single array')
        if 'mask2d' not in self.arrays or not (self.is_model or 'score_power' in self.arrays):
            raise GoldenFileError(
                f'{path} does not have the layout of a golden file (no mask2d, '
                'or neither config_json nor score_power)'
            )

    @property
    def is_model(self) -> bool:
        """Whether the file holds a model and its figures, or evaluation alone."""
        return 'config_json' in self.arrays

    @property
    def is_tubes(self) -> bool:
        """Whether the file is of the spatio-temporal variant (HC-STVG)."""
        return 'num_tubes' in self.arrays

    @property
    def config(self) -> GoldenSettings:
        """Settings the figures were made with."""
        return self.json('config_json', object_hook=partial(GoldenSettings, path=self.path))

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.arrays:
            raise GoldenFileError(f'{self.path} has no array {key}')
        try:
            return self.arrays[key]
        except UNREADABLE as error:
            raise GoldenFileError(f'{self.path}: {key} is damaged: {error}') from error

    def holds(self, group: str) -> bool:
        """Whether there is an array of this name, or one under it."""
        return any(key == group or key.startswith(f'{group}/') for key in self.arrays.files)

    def get(self, key: str) -> np.ndarray | dict:
        """The array of this name; nothing, as an empty dict, where there is none."""
        return self[key] if key in self.arrays else {}

    def group(self, prefix: str, required: bool = False) -> dict[str, np.ndarray]:
        """All arrays under ``prefix/``, by the rest of their name; there must be one if asked."""
        start = f'{prefix}/'
        found = {
            key.removeprefix(start): self[key] for key in self.arrays.files if key.startswith(start)
        }
        if required and not found:
            raise GoldenFileError(f'{self.path} has no array {start}…')
        return found

    def weights(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays under ``prefix/`` as tensors; there must be one."""
        found = self.group(prefix, required=True)
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def json(self, key: str, object_hook=None) -> dict:
        """An object that is stored as its JSON text."""
        try:
            content = json.loads(str(self[key]), object_hook=object_hook)
        except json.JSONDecodeError as error:
            raise GoldenFileError(f'{self.path}: {key} is not JSON: {error}') from error
        if not isinstance(content, dict):
            raise GoldenFileError(f'{self.path}: {key} is not a JSON object')
        return content

    def annotations(self) -> list[VideoAnnotation]:
        """The excerpt of the annotations, read as a dataset reads it, in ``video_order``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'annotation.json'
            path.write_text(str(self['annotation_json']), encoding='utf-8')
            try:
                videos = {video.video_id: video for video in read_annotations(path)}
            except ValueError as error:
                raise GoldenFileError(f'{self.path}: annotation_json: {error}') from error
        order = [str(video_id) for video_id in self['video_order']]
        absent = [video_id for video_id in order if video_id not in videos]
        if absent:
            raise GoldenFileError(
                f'{self.path}: annotation_json has no video {absent[0]!r} with '
                'a usable sentence, which video_order names'
            )
        return [videos[video_id] for video_id in order]


@dataclass
class Row:
    """Outcome of comparing one quantity.

    Attributes:
        quantity (str): What was compared, and how many values or parameters of it.
        max_abs (float): Largest absolute difference.
        max_rel (float): Largest difference relative to the largest reference value.
        bound (float): Bound on ``max_rel``; 0 asks for equality.
        passed (bool): Verdict; True of a skipped quantity.
        note (str): What a reader should know, such as the worst parameter or the number of ties.
        skipped (bool): Whether the file does not hold the quantity, so that nothing was compared.
    """

    quantity: str
    max_abs: float
    max_rel: float
    bound: float
    passed: bool
    note: str = ''
    skipped: bool = False


@dataclass
class Report:
    """Comparisons of one golden file."""

    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing failed."""
        compared = any(not row.skipped for row in self.rows)
        return compared and all(row.passed for row in self.rows)

    def compare(self, quantity: str, ours, reference, bound: float, absolute=None) -> None:
        """Add a row for one quantity: an array, or several by name.

        Without a reference the quantity is skipped, and the row says so. Each array's difference is
        taken relative to that array's largest reference value.

        Args:
            quantity (str): Name of the row.
            ours (Array | dict[str, Array]): Our values; tensors may be on any device.
            reference (Array | dict[str, Array]): Reference values, under the same keys.
            bound (float): Bound on the relative difference; 0 asks for equality.
            absolute (dict[str, float], optional): Keys whose reference is zero in exact
                arithmetic, with the scale to divide their difference by instead.
        """
        if isinstance(reference, dict) and not reference:
            self.skip(quantity)
            return
        ours, reference = (
            value if isinstance(value, dict) else {ALONE: value} for value in (ours, reference)
        )
        if ours.keys() != reference.keys():
            odd = ', '.join(sorted(map(str, ours.keys() ^ reference.keys()))[:5])
            self.fail(quantity, f'on one side only: {odd}')
            return
        worst, max_abs, worst_key = -1.0, 0.0, ''
        for key, expected in reference.items():
            value, expected = _array(ours[key]), np.asarray(expected)
            if value.shape != expected.shape:
                self.fail(quantity, f'{key}: shape {value.shape}, reference {expected.shape}')
                return
            difference = _largest_difference(value, expected)
            scale = (absolute or {}).get(key) or np.nanmax(np.abs(expected), initial=0) or 1.0
            max_abs = max(max_abs, difference)
            if difference / scale > worst:
                worst, worst_key = difference / scale, key
        several = len(reference) > 1
        note = f'worst: {worst_key}' if several and worst > 0 else ''
        name = f'{quantity} ({len(reference)})' if several else quantity
        self.rows.append(Row(name, max_abs, worst, bound, worst <= bound, note))

    def skip(self, quantity: str) -> None:
        """Add a row for a group of which the file holds nothing."""
        nothing = float('nan')
        self.rows.append(
            Row(quantity, nothing, nothing, nothing, True, 'not in this file', skipped=True)
        )

    def fail(self, quantity: str, why: str) -> None:
        """Add a row for a quantity that cannot even be compared."""
        self.rows.append(Row(quantity, float('inf'), float('inf'), 0.0, False, why))


def _array(value) -> np.ndarray:
    return np.asarray(value.detach().cpu() if torch.is_tensor(value) else value)


def _largest_difference(value: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite where only one side is NaN."""
    value, expected = value.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isnan(value), np.isnan(expected)):
        return float('inf')
    return float(np.nanmax(np.abs(value - expected), initial=0.0))
