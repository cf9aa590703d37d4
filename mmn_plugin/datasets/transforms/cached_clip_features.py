"""Reading and pooling a video's features, once."""

from mmcv.transforms import BaseTransform

from ..feature_cache import FeatureCache, fingerprint
from .load_clip_features import LoadClipFeatures
from .pool_clip_features import PoolClipFeatures


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
