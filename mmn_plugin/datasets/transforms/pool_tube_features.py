"""Bring the features of all tubes to one length."""

import numpy as np
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform

from .pool_clip_features import PoolClipFeatures


@TRANSFORMS.register_module()
class PoolTubeFeatures(BaseTransform):
    """Pool each stream of each tube to R segments, and join the streams along D.

    The pooling is that of `PoolClipFeatures` without its clamp. Streams may differ in length.

    Required key: ``features``, per stream a list of T arrays (rows, D_k). Optional:
    ``feature_sizes``, the D_k, for videos without tubes. Modified key: ``features``, (T, R, D).

    Args:
        num_segments (int): R.
    """

    def __init__(self, num_segments: int):
        if num_segments < 1:
            raise ValueError(f'num_segments={num_segments}; it must be at least 1')
        self.num_segments = num_segments

    def transform(self, results: dict) -> dict:
        """Replace ``features`` by the pooled ones."""
        tubes = zip(*results['features'], strict=True)  # by tube, then by stream
        pooled = [
            np.concatenate(
                [
                    PoolClipFeatures.pool(stream, self.num_segments, clamp_last=False)
                    for stream in streams
                ],
                axis=1,
            )
            for streams in tubes
        ]
        size = sum(results.get('feature_sizes') or [0])
        results['features'] = (
            np.stack(pooled) if pooled else np.zeros((0, self.num_segments, size), np.float32)
        )  # (T, R, D)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_segments={self.num_segments})'
