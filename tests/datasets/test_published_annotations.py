"""The whole pipeline on the real annotations; features are random."""

import json

import h5py
import numpy as np
import pytest
from helpers.random_features import write_random_features

from mmn_plugin.datasets import TemporalGroundingDataset

SIZES = {  # videos and sentences after dropping, reference/mmn.md
    'tacos/train': (75, 9_790),
    'tacos/val': (27, 4_436),
    'tacos/test': (25, 4_001),
    'charades_sta/train': (5_336, 12_404),
    'charades_sta/test': (1_334, 3_720),
    'activitynet/train': (10_009, 37_417),
    'activitynet/val': (4_917, 17_505),
    'activitynet/test': (4_885, 17_031),
}
SEGMENTS = dict(tacos=256, charades_sta=32, activitynet=256)


def build(folder, annotations, num_segments, key):
    """Dataset of annotations, as JSON, and of the features in a folder."""
    (folder / 'annotations.json').write_text(annotations)
    return TemporalGroundingDataset(
        ann_file='annotations.json',
        data_root=str(folder),
        data_prefix=dict(features='features.hdf5'),
        feature_key=key,
        pipeline=[
            dict(type='LoadClipFeatures'),
            dict(type='PoolClipFeatures', num_segments=num_segments),
            dict(type='PackGroundingInputs'),
        ],
    )


@pytest.mark.parametrize('split', SIZES)
def test_every_video_passes_the_pipeline(shared, tmp_path, split):
    name, key = split.split('/')[0], 'c3d_features' if 'activitynet' in split else None
    annotations = (shared / 'data' / 'annotations' / f'{split}.json').read_text()
    write_random_features(tmp_path / 'features.hdf5', json.loads(annotations), 8, 20, key)
    dataset = build(tmp_path, annotations, SEGMENTS[name], key)
    # strings and seconds: about as large as the annotation file
    assert dataset.data_bytes.nbytes < 2 * len(annotations)
    videos, sentences = SIZES[split]
    assert len(dataset) == videos
    counted = 0
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        moments = np.array(info['windows'])[:, 0]
        counted += len(info['sentences'])
        assert len(moments) == len(info['sentences']) == len(info['sentence_index'])
        assert (moments[:, 0] < moments[:, 1]).all()
        assert moments.min() >= 0
        assert moments.max() <= info['duration']
    assert counted == sentences
    for index in range(0, videos, max(1, videos // 50)):
        packed = dataset[index]
        assert packed['inputs'].shape == (SEGMENTS[name], 8)
        sample = packed['data_samples']
        assert sample.gt_instances.moments.shape == (len(sample.sentences), 2)


@pytest.mark.parametrize(
    'name', ['tacos_pool', 'charades_pool', 'charades_conv', 'activitynet_pool', 'activitynet_conv']
)
def test_samples_agree_with_the_published_code(golden, tmp_path, name):
    figures = golden(name)
    config = json.loads(str(figures['config_json']))
    key = 'c3d_features' if config['dataset'] == 'activitynet' else None
    with h5py.File(tmp_path / 'features.hdf5', 'w') as file:
        for video_id in figures['video_order']:
            file[f'{video_id}/{key}' if key else str(video_id)] = figures[f'feat/{video_id}']
    dataset = build(tmp_path, str(figures['annotation_json']), config['num_pre_clips'], key)
    assert len(dataset) == len(figures['video_order'])
    for index, video_id in enumerate(figures['video_order']):
        packed = dataset[index]
        sample = packed['data_samples']
        assert sample.video_id == video_id
        assert sample.duration == figures['durations'][index]
        np.testing.assert_array_equal(sample.gt_instances.moments, figures[f'moments/{index}'])
        expected = figures['pooled_feats'][index]
        assert np.abs(packed['inputs'].numpy() - expected).max() <= 1e-6 * np.abs(expected).max()
