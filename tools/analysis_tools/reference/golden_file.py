"""Golden files, and the comparison of a quantity with what they hold."""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from mmn_plugin.errors import InputError
from mmn_plugin.structures.annotations import VideoAnnotation, parse_video

UNREADABLE = (BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, TypeError)
ALONE = 'all'  # key of a quantity that is a single array


class GoldenFileError(InputError):
    """Raised if a golden file cannot be used; the message names the key."""


class Settings(dict):
    """Settings that a file's figures were made with."""

    def __missing__(self, key: str):
        raise GoldenFileError(f'config_json has no setting {key!r}')


class GoldenFile(dict):
    """Arrays that the published code produced, by name, as ``golden/README.md`` lays them out.

    Args:
        path (Path): The ``.npz`` file.

    Raises:
        GoldenFileError: If it is not a golden file, or damaged. So do all methods where an array is
            absent or is not what it should be.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        what = 'it is not an .npz file of plain arrays, or it'
        try:
            with np.load(path, allow_pickle=False) as archive:
                for what in archive.files:
                    self[what] = archive[what]
        except UNREADABLE as error:
            raise GoldenFileError(f'{what} is damaged: {error}') from error
        if 'mask2d' not in self or not (self.is_model or 'score_power' in self):
            raise GoldenFileError(
                'it does not have the layout of a golden file (no mask2d, or neither '
                'config_json nor score_power)'
            )

    def __missing__(self, key: str):
        raise GoldenFileError(f'it has no array {key}')

    @property
    def is_model(self) -> bool:
        """Whether the file holds a model and its figures, or evaluation alone."""
        return 'config_json' in self

    @property
    def is_tubes(self) -> bool:
        """Whether the file is of the spatio-temporal variant (HC-STVG)."""
        return 'num_tubes' in self

    @property
    def config(self) -> Settings:
        """Settings the figures were made with."""
        return self.json('config_json')

    def holds(self, group: str) -> bool:
        """Whether there is an array of this name, or one under it."""
        return any(key == group or key.startswith(f'{group}/') for key in self)

    def group(self, prefix: str, required: bool = False) -> dict[str, np.ndarray]:
        """All arrays under ``prefix/``, by the rest of their name; there must be one if asked."""
        start = f'{prefix}/'
        found = {key[len(start) :]: value for key, value in self.items() if key.startswith(start)}
        if required and not found:
            raise GoldenFileError(f'it has no array {start}…')
        return found

    def weights(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays under ``prefix/`` as tensors; there must be one."""
        found = self.group(prefix, required=True)
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def json(self, key: str) -> Settings:
        """An object that is stored as its JSON text."""
        try:
            content = json.loads(str(self[key]), object_hook=Settings)
        except json.JSONDecodeError as error:
            raise GoldenFileError(f'{key} is not JSON: {error}') from error
        if not isinstance(content, dict):
            raise GoldenFileError(f'{key} is not a JSON object')
        return content

    def annotations(self) -> list[VideoAnnotation]:
        """The excerpt of the annotations, read as a dataset reads it, in ``video_order``."""
        content, videos = self.json('annotation_json'), []
        for video_id in map(str, self['video_order']):
            if video_id not in content:
                raise GoldenFileError(f'annotation_json has no video {video_id!r} of video_order')
            videos.append(parse_video('annotation_json', video_id, content[video_id]))
        return videos


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
            value, expected = ours[key], np.asarray(expected)
            value = np.asarray(value.detach().cpu() if torch.is_tensor(value) else value)
            if value.shape != expected.shape:
                self.fail(quantity, f'{key}: shape {value.shape}, reference {expected.shape}')
                return
            difference = largest_difference(value.astype(float), expected.astype(float))
            scale = (absolute or {}).get(key) or np.nanmax(np.abs(expected), initial=0) or 1.0
            max_abs = max(max_abs, difference)
            if difference / scale > worst:
                worst, worst_key = float(difference / scale), key
        several = len(reference) > 1
        note = f'worst: {worst_key}' if several and worst > 0 else ''
        name = f'{quantity} ({len(reference)})' if several else quantity
        self.rows.append(Row(name, max_abs, worst, bound, worst <= bound, note))

    def skip(self, quantity: str) -> None:
        """Add a row for a group of which the file holds nothing."""
        nothing = float('nan')
        self.rows.append(Row(quantity, nothing, nothing, nothing, True, 'not in this file', True))

    def fail(self, quantity: str, why: str) -> None:
        """Add a row for a quantity that cannot even be compared."""
        self.rows.append(Row(quantity, float('inf'), float('inf'), 0.0, False, why))


def largest_difference(value: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite where only one side is NaN."""
    if not np.array_equal(np.isnan(value), np.isnan(expected)):
        return float('inf')
    return float(np.nanmax(np.abs(value - expected), initial=0.0))
