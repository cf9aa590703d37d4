"""Features kept in memory between epochs."""

import contextlib
import hashlib
import json
import logging
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from mmn_plugin.errors import InputError

from .transforms import LoadClipFeatures, PoolClipFeatures

FORMAT = 1  # of what is stored; another one is not found


class FeatureCache(ABC):
    """Keeps the pooled features of videos, (R, D) float32, each under a fingerprint.

    The fingerprint says what they were made from (`fingerprint`), so that features of a changed
    source, or of other settings, are never found.
    """

    @abstractmethod
    def get(self, video_id: str, fingerprint: bytes) -> np.ndarray | None:
        """The features of a video, writable, or None where they are not there."""

    @abstractmethod
    def put(self, video_id: str, fingerprint: bytes, features: np.ndarray) -> None:
        """Keep the features of a video; failing to is no error."""


def fingerprint(sources: Sequence[tuple], settings: dict) -> bytes:
    """16 bytes for the sources of a video's features and the settings of the pooling.

    Args:
        sources (Sequence[tuple]): Path, key and version (size, time of change, place on the disk)
            of every file.
        settings (dict): What else decides the result.
    """
    text = json.dumps([FORMAT, list(sources), settings], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class CachedClipFeatures(BaseTransform):
    """`LoadClipFeatures` and `PoolClipFeatures`, or what they gave before.

    `TemporalGroundingDataset` puts it in their place where it has a ``feature_cache``. A source
    that changes while it is in use is an error here too, although what was kept of it would serve.

    Required and modified keys: those of the two transforms.

    Args:
        load (LoadClipFeatures): Reads.
        pool (PoolClipFeatures): Pools.
        cache (FeatureCache): Keeps the result.
    """

    def __init__(self, load: LoadClipFeatures, pool: PoolClipFeatures, cache: FeatureCache):
        self.load = load
        self.pool = pool
        self.cache = cache

    def transform(self, results: dict) -> dict:
        """Add ``features``, (R, D)."""
        video_id = results['video_id']
        mark = self._fingerprint(results)
        features = self.cache.get(video_id, mark)
        if features is None:
            results = self.pool(self.load(results))
            self.cache.put(video_id, mark, results['features'])
        else:
            results['features'] = features
        return results

    def _fingerprint(self, results: dict) -> bytes:
        files = results['feature_files']
        keys = results.get('feature_keys') or [None] * len(files)
        versions = results.get('feature_versions') or [None] * len(files)
        sources = []
        for path, key, version in zip(files, keys, versions, strict=True):
            store = self.load.store(path, key)
            store.check_version(results['video_id'], version)
            sources.append((path, key, version or store.video_version(results['video_id'])))
        settings = dict(
            video_id=results['video_id'],
            num_segments=self.pool.num_segments,
            clamp_last=self.pool.clamp_last,
        )
        return fingerprint(sources, settings)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load}, {self.pool}, {type(self.cache).__name__})'


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


class MemoryFeatureCache(FeatureCache):
    """One array for all videos, filled as they are read; forked workers fill and read the same.

    It takes 4 * V * R * D bytes once every video was read (TACoS 0.3 GB, Charades-STA 2.8 GB,
    ActivityNet Captions 5.1 GB for their training sets), once per rank: its workers share it.
    A pickled copy is empty, so spawned workers would each keep their own.

    Args:
        video_ids (Sequence[str]): The videos.
        shape (tuple[int, int]): R and D.

    Raises:
        OSError: If there is not as much memory.
    """

    def __init__(self, video_ids: Sequence[str], shape: tuple[int, int]):
        self.video_ids = list(video_ids)
        self.shape = tuple(shape)
        self._slots = {video_id: slot for slot, video_id in enumerate(self.video_ids)}
        # Not torch's shared memory: /dev/shm is small in many containers.
        count = len(self.video_ids)
        features = mmap.mmap(-1, max(1, 4 * count * self.shape[0] * self.shape[1]))
        self._features = np.frombuffer(features, np.float32)[: count * np.prod(self.shape)]
        self._features = self._features.reshape(count, *self.shape)  # (V, R, D)
        marks = mmap.mmap(-1, max(1, 16 * count))
        self._marks = np.frombuffer(marks, np.uint8)[: 16 * count].reshape(count, 16)

    def get(self, video_id: str, fingerprint: bytes) -> np.ndarray | None:
        """A copy, or None; also where another process writes it at this moment."""
        slot = self._slots.get(video_id)
        if slot is None or self._marks[slot].tobytes() != fingerprint:
            return None
        features = self._features[slot].copy()  # (R, D)
        return features if self._marks[slot].tobytes() == fingerprint else None

    def put(self, video_id: str, fingerprint: bytes, features: np.ndarray) -> None:
        """Write it; marked as whole when it is."""
        slot = self._slots.get(video_id)
        if slot is None or features.shape != self.shape:
            return
        self._marks[slot] = 0
        self._features[slot] = features
        self._marks[slot] = np.frombuffer(fingerprint, np.uint8)

    def __getstate__(self) -> dict:
        return dict(video_ids=self.video_ids, shape=self.shape)

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['video_ids'], state['shape'])

    def __deepcopy__(self, memo) -> 'MemoryFeatureCache':
        return self  # of a dataset's subset: found by the video's id, it serves both


def cache_features(dataset) -> None:
    """Put `CachedClipFeatures` in the place of the two steps that read and pool.

    Args:
        dataset (TemporalGroundingDataset): Initialised, with ``feature_cache``.

    Raises:
        ValueError: If ``LoadClipFeatures`` is not followed by ``PoolClipFeatures``.
    """
    steps = dataset.pipeline.transforms
    place = next((i for i, step in enumerate(steps) if isinstance(step, LoadClipFeatures)), None)
    if place is None or not isinstance((*steps, None)[place + 1], PoolClipFeatures):
        raise InputError(
            f'feature_cache={dataset.feature_cache!r} keeps what LoadClipFeatures and, right after '
            'it, PoolClipFeatures give, but the pipeline of the dataset '
            f'{dataset.ann_file} has no such pair: correct it, or set feature_cache=None'
        )
    load, pool = steps[place : place + 2]
    cache = _build_cache(dataset, (pool.num_segments, dataset.feature_size))
    if cache is not None:
        steps[place : place + 2] = [CachedClipFeatures(load, pool, cache)]


def _build_cache(dataset, shape: tuple[int, int]) -> FeatureCache | None:
    if dataset.feature_cache != 'memory':
        return FolderFeatureCache(dataset.feature_cache, shape)
    video_ids = [dataset.get_data_info(i)['video_id'] for i in range(len(dataset))]
    size = 4 * len(video_ids) * shape[0] * shape[1] / 1e6
    try:
        cache = MemoryFeatureCache(video_ids, shape)
    except OSError as error:
        print_log(
            f"feature_cache='memory' would take {size:,.0f} MB, which are not there "
            f'({error.strerror}); the run goes on without it',
            'current',
            logging.WARNING,
        )
        return None
    print_log(f"feature_cache='memory' takes up to {size:,.0f} MB", 'current', logging.INFO)
    return cache
