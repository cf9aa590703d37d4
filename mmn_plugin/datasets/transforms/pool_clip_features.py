"""Bring the features of any video to one length."""

import numpy as np
from mmaction.registry import TRANSFORMS
from mmcv.transforms import BaseTransform


@TRANSFORMS.register_module()
class PoolClipFeatures(BaseTransform):
    """Normalise the rows of a video's features and average them to R segments.

    Every row is divided by its L2 norm (at least 1e-12). Segment i is the mean of rows
    ``b_i ... b_(i+1) - 1`` with ``b_i = round(i / R * T)``, computed in float32 and rounded half to
    even, or row ``b_i`` where that range is empty (2D-TAN's and MMN's pooling).

    Required key: ``features``, (T, D) float32 or a list of (T_k, D_k), which are treated each by
    itself and joined along D. Modified key: ``features``, (R, D) float32.

    Args:
        num_segments (int): R, called ``num_pre_clips`` in the published code.
        clamp_last (bool): Clamp every boundary to T - 1, as published for MMN: the last row then
            enters no mean unless it is alone. False lets b_R be T, as in the HC-STVG variant; an
            empty segment then takes row min(b_i, T - 1). Defaults to True.
    """

    def __init__(self, num_segments: int, clamp_last: bool = True):
        if num_segments < 1:
            raise ValueError(f'num_segments={num_segments}; it must be at least 1')
        self.num_segments = num_segments
        self.clamp_last = clamp_last

    def transform(self, results: dict) -> dict:
        """Replace ``features`` by the pooled ones."""
        features = results['features']
        streams = features if isinstance(features, list | tuple) else [features]
        pooled = [self.pool(stream, self.num_segments, self.clamp_last) for stream in streams]
        results['features'] = pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)
        return results

    @staticmethod
    def pool(features: np.ndarray, num_segments: int, clamp_last: bool = True) -> np.ndarray:
        """Pool one video: (T, D) -> (num_segments, D) float32."""
        features = np.asarray(features, dtype=np.float32)
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.maximum(norms, np.float32(1e-12))  # (T, D)
        starts, counts = PoolClipFeatures.segments(len(features), num_segments, clamp_last)
        # The k-th row of all segments at once: T / R steps, and no difference of long sums.
        # np.add.reduceat gives the same bits and takes two to five times as long along rows.
        sums = features[starts].astype(np.float64)  # (R, D)
        for step in range(1, counts.max()):
            longer = np.flatnonzero(counts > step)
            sums[longer] += features[starts[longer] + step]
        return (sums / counts[:, None]).astype(np.float32)

    @staticmethod
    def segments(
        num_rows: int, num_segments: int, clamp_last: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of rows of each segment, both (num_segments,) int64."""
        steps = np.arange(num_segments + 1, dtype=np.float32) / np.float32(num_segments)
        bounds = np.round(steps * np.float32(num_rows)).astype(np.int64)
        if clamp_last:
            bounds = np.minimum(bounds, num_rows - 1)
        counts = np.maximum(np.diff(bounds), 1)
        return np.minimum(bounds[:-1], num_rows - 1), counts

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_segments={self.num_segments}, clamp_last={self.clamp_last})'
        )
