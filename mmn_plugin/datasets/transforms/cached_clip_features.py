"""Reading and pooling a video's features, once."""
from mmcv.transforms import BaseTransform

from ..feature_cache import FeatureCache, fingerprint
from ..open_feature_store import open_feature_store
from .load_clip_features import LoadClipFeatures
from .pool_clip_features import PoolClipFeatures


class CachedClipFeatures(BaseTransform):
    """`LoadClipFeatures` and `PoolClipFeatures`, or what they gave before.

    `TemporalGroundingDataset` puts it in their place where it has a ``feature_cache``.

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
        self._stores = {}

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
        sources = [(path, key, version or self._version(path, key, results['video_id']))
                   for path, key, version in zip(files, keys, versions, strict=True)]
        settings = dict(video_id=results['video_id'], num_segments=self.pool.num_segments,
                        clamp_last=self.pool.clamp_last)
        return fingerprint(sources, settings)

    def _version(self, path: str, key: str | None, video_id: str) -> tuple[int, ...]:
        """Of a source without a version of its own: a folder, whose files may change each."""
        if (path, key) not in self._stores:
            self._stores[path, key] = open_feature_store(path, key)
        return self._stores[path, key].video_version(video_id)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load}, {self.pool}, {type(self.cache).__name__})'
