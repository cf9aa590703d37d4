"""Give a dataset a feature cache."""

import logging

from mmengine.logging import print_log

from .feature_cache import FeatureCache
from .folder_feature_cache import FolderFeatureCache
from .memory_feature_cache import MemoryFeatureCache
from .transforms import CachedClipFeatures, LoadClipFeatures, PoolClipFeatures


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
        raise ValueError(
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
