"""The HDF5 file that clip features end up in."""
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np

from .feature_file_error import FeatureFileError


class FeatureFile:
    """Collects features video by video and survives being killed at any moment.

    Finished videos first lie one by one in ``<name>.parts/``. :meth:`merge` writes them, with what
    the file already holds, into a new file and moves it to its place in one step. So the file is
    either absent or whole, and after a kill nothing that was finished is done again.

    The file has one dataset (T, D) float32 per video; it and each dataset carry the attributes
    ``extractor``, ``stride`` (frames) and ``fps`` (frames per second looked at).

    Args:
        path (str | Path): The .h5 file.
        settings (dict): The attributes.

    Raises:
        FeatureFileError: If the file or its parts stem from other settings or cannot be read.
    """

    def __init__(self, path: str | Path, settings: dict) -> None:
        self.path = Path(path)
        self.settings = settings
        self.parts = self.path.with_name(self.path.name + '.parts')
        self._in_file = self._check_file()
        self._check_parts()

    def _check_file(self) -> set[str]:
        if not self.path.exists():
            return set()
        try:
            with h5py.File(self.path) as file:
                found = {key: _plain(file.attrs.get(key)) for key in self.settings}
                names = set(file)
        except OSError as error:
            raise FeatureFileError(f'{self.path}: cannot be read as HDF5 ({error}); delete it or '
                                   'name another file') from error
        self._compare(found, self.path)
        return names

    def _check_parts(self) -> None:
        note = self.parts / 'settings.json'
        if note.is_file():
            self._compare(json.loads(note.read_text()), self.parts)

    def _compare(self, found: dict, where: Path) -> None:
        if found != self.settings:
            raise FeatureFileError(f'{where} holds features made with {found}, asked for are '
                                   f'{self.settings}; delete it or name another file')

    def finished(self) -> set[str]:
        """Ids of the videos that need no work any more."""
        return self._in_file | {path.stem for path in self.parts.glob('*.npy')}

    def open_parts(self) -> None:
        """Make the folder that :meth:`add` writes to."""
        self.parts.mkdir(parents=True, exist_ok=True)
        note = self.parts / 'settings.json'
        unfinished = note.with_suffix('.part')
        unfinished.write_text(json.dumps(self.settings))
        os.replace(unfinished, note)

    def add(self, video_id: str, features: np.ndarray) -> None:
        """Keep a video's features; may be called from several processes.

        Args:
            video_id (str): Name of the dataset.
            features (np.ndarray): (T, D) float32.
        """
        unfinished = self.parts / f'{video_id}.part'
        with open(unfinished, 'wb') as file:
            np.save(file, features)
        os.replace(unfinished, self.parts / f'{video_id}.npy')

    def merge(self) -> None:
        """Move what :meth:`add` kept into the file and remove the parts."""
        if not self.parts.is_dir():
            return
        unfinished = self.path.with_name(self.path.name + '.part')
        if self.path.exists():
            shutil.copyfile(self.path, unfinished)
        with h5py.File(unfinished, 'a' if self.path.exists() else 'w') as file:
            file.attrs.update(self.settings)
            for part in sorted(self.parts.glob('*.npy')):
                if part.stem not in file:
                    dataset = file.create_dataset(part.stem, data=np.load(part))
                    dataset.attrs.update(self.settings)
        os.replace(unfinished, self.path)
        self._in_file = self.finished()
        shutil.rmtree(self.parts)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
