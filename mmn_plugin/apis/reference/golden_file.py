"""Reading a golden file."""

import json
import tempfile
import zlib
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from mmn_plugin.structures.annotations import VideoAnnotation, read_annotations

from .golden_file_error import GoldenFileError
from .golden_settings import GoldenSettings

UNREADABLE = (BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError)


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

    @property
    def num_videos(self) -> int:
        """Number of videos (B)."""
        if self.is_tubes:
            return len(self['num_tubes'])
        return len(self['video_order' if self.is_model else 'videos'])

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
