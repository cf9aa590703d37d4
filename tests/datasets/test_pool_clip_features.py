"""Features averaged to segments, by definition and as in the published code."""

import itertools
import json

import numpy as np
import pytest

from mmn_plugin.datasets import PoolClipFeatures, transforms

LENGTHS = (1, 2, 7, 11, 31, 32, 33, 63, 64, 65, 75, 256, 257, 606, 5000)


def pool_by_definition(features, num_segments, clamp_last):
    """One segment after the other, as the reference page says it."""
    rows = features.astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    length = len(rows)
    bounds = [
        int(np.round(np.float32(i) / np.float32(num_segments) * np.float32(length)))
        for i in range(num_segments + 1)
    ]
    if clamp_last:
        bounds = [min(bound, length - 1) for bound in bounds]
    segments = []
    for start, end in itertools.pairwise(bounds):
        segments.append(rows[start:end].mean(0) if end > start else rows[min(start, length - 1)])
    return np.stack(segments)


@pytest.mark.parametrize('clamp_last', [True, False])
def test_pooling_is_the_mean_of_normalized_rows(clamp_last):
    for length, num_segments in itertools.product(LENGTHS, (1, 16, 32, 256)):
        features = np.random.default_rng(length).standard_normal((length, 6)).astype(np.float32)
        pooled = PoolClipFeatures.pool(features, num_segments, clamp_last)
        assert pooled.shape == (num_segments, 6)
        assert pooled.dtype == np.float32
        expected = pool_by_definition(features, num_segments, clamp_last)
        np.testing.assert_allclose(pooled, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize('clamp_last', [True, False])
@pytest.mark.parametrize(('length', 'num_segments'), [(1, 3), (40, 64), (300, 16)])
def test_rows_that_outgrow_the_cache_give_the_same_bits(
    length, num_segments, clamp_last, monkeypatch
):
    features = np.random.default_rng(length).standard_normal((length, 24)).astype(np.float32)
    features[length // 2] = 0
    pooled = []
    for limit in (features.size, features.size - 1):
        monkeypatch.setattr(transforms, 'CACHED_VALUES', limit)
        pooled.append(PoolClipFeatures.pool(features, num_segments, clamp_last))
    assert np.array_equal(*pooled)


def test_hcstvg_pooling_agrees_with_the_published_code(golden):
    figures = golden('hcstvg_pool')
    config = json.loads(str(figures['config_json']))
    transform = PoolClipFeatures(config['num_pre_clips'], clamp_last=False)
    tube = 0
    for video, count in enumerate(figures['num_tubes']):
        for i in range(count):
            streams = [
                figures[key]
                for key in sorted(figures.files)
                if key.startswith(f'tube_feat/{video}/{i}/')
            ]
            pooled = transform(dict(features=streams))['features']
            expected = figures['pooled_feats'][tube]
            assert np.abs(pooled - expected).max() <= 1e-6 * np.abs(expected).max()
            tube += 1
    assert tube == len(figures['pooled_feats'])


def test_last_row_enters_no_mean_when_clamped_and_does_when_not():
    features = np.eye(8, dtype=np.float32)
    assert PoolClipFeatures.pool(features, 4)[:, 7].max() == 0
    assert PoolClipFeatures.pool(features, 4, clamp_last=False)[3, 7] == 0.5
    assert not PoolClipFeatures.pool(0 * features, 2).any()


def test_no_segments_is_refused():
    with pytest.raises(ValueError, match='num_segments=0'):
        PoolClipFeatures(0)
