"""Read the features of a video."""

from collections.abc import Sequence

from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from ..feature_error import FeatureError
from ..feature_store import FeatureStore
from ..open_feature_store import open_feature_store


@TRANSFORMS.register_module()
class LoadClipFeatures(BaseTransform):
    """Read the features of a video from one or several files.

    Every file is opened once per process and stays open; a forked or spawned worker opens its own.

    Required keys: ``video_id``, ``feature_files`` (list of paths). Optional: ``feature_keys`` (list
    of names within a video's entry, or None each), ``feature_sizes`` (list of D that each file must
    have), ``feature_versions`` (list of what `FeatureStore.video_version` gave, which the files
    must still be). `TemporalGroundingDataset` gives them all.

    Added keys: ``features``, (T, D) float32; with several files a list of (T_k, D_k), which
    `PoolClipFeatures` pools each by itself and joins along D. They may differ in length: each
    covers the whole video.

    Raises:
        FeatureError: If a video's features are absent, changed, damaged, empty, not finite, or not
            of the size of the other videos; the message names file and video.
    """

    def __init__(self):
        self._stores: dict[tuple[str, str | None], FeatureStore] = {}

    def transform(self, results: dict) -> dict:
        """Add ``features``."""
        files = results['feature_files']
        keys = results.get('feature_keys') or [None] * len(files)
        sizes = results.get('feature_sizes') or [None] * len(files)
        versions = results.get('feature_versions') or [None] * len(files)
        streams = [
            self._read(results['video_id'], *source)
            for source in zip(files, keys, sizes, versions, strict=True)
        ]
        results['features'] = streams[0] if len(streams) == 1 else streams
        return results

    def store(self, path: str, key: str | None) -> FeatureStore:
        """The reader of a file or folder in this process."""
        if (path, key) not in self._stores:
            self._stores[path, key] = open_feature_store(path, key)
        return self._stores[path, key]

    def _read(
        self,
        video_id: str,
        path: str,
        key: str | None,
        size: int | None,
        version: Sequence[int] | None,
    ):
        features = self.store(path, key).read(video_id, version)  # (T, D)
        if size is not None and features.shape[1] != size:
            raise FeatureError(
                f'{path}: video {video_id!r} has features of size {features.shape[1]}, other '
                f'videos of size {size}. Extract it again with the same network, or remove it from '
                'the annotations'
            )
        return features

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
