"""Pooled features in a folder, for later runs as well."""

import contextlib
import logging
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from mmengine.logging import print_log

from .feature_cache import FeatureCache


class FolderFeatureCache(FeatureCache):
    """One ``.npy`` file per video and fingerprint, mapped into memory when read.

    Any number of workers, ranks and runs may use a folder at once: a file gets its name when it is
    whole and on the disk. A damaged file is made again. Where the folder cannot be written to, one
    warning says so and the run goes on without storing. Files of sources that have changed since
    are not found any more; nothing deletes them, so delete the folder to free its space.

    Args:
        folder (str | Path): Made at the first use.
        shape (tuple[int, int]): R and D.
    """

    def __init__(self, folder: str | Path, shape: tuple[int, int]):
        self.folder = Path(folder)
        self.shape = tuple(shape)
        self._writable = True

    def get(self, video_id: str, fingerprint: bytes) -> np.ndarray | None:
        """The mapped features (changes to them stay in memory), or None."""
        try:
            features = np.load(self._path(video_id, fingerprint), mmap_mode='c', allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or damaged
            return None
        good = features.shape == self.shape and features.dtype == np.float32
        return np.asarray(features) if good else None

    def put(self, video_id: str, fingerprint: bytes, features: np.ndarray) -> None:
        """Write it under another name first."""
        if not self._writable:
            return
        path = self._path(video_id, fingerprint)
        partial = path.with_name(f'{path.name}.{os.getpid()}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, 'wb') as file:
                np.save(file, np.ascontiguousarray(features, np.float32))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            self._writable = False
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            print_log(
                f'feature_cache={str(self.folder)!r} cannot be written to '
                f'({error.strerror}); the run goes on without storing pooled features. Free '
                'some space, make the folder writable, or give another one',
                logger='current',
                level=logging.WARNING,
            )

    def _path(self, video_id: str, fingerprint: bytes) -> Path:
        name = quote(video_id, safe=' ')[:180]  # the fingerprint tells what this cuts off
        return self.folder / f'{name}.{fingerprint.hex()}.npy'
