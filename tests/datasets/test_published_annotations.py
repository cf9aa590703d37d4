"""The whole pipeline on the real annotations; features are random."""

import json
import sys

import h5py
import numpy as np
import pytest

from mmn_plugin.datasets import TemporalGroundingDataset, write_random_features

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


def build(shared, tmp_path, split, videos=None):
    """Dataset of a split, or of its first videos."""
    name = split.split('/')[0]
    annotations = json.loads((shared / 'data' / 'annotations' / f'{split}.json').read_text())
    annotations = dict(list(annotations.items())[:videos])
    (tmp_path / 'annotations.json').write_text(json.dumps(annotations))
    key = 'c3d_features' if name == 'activitynet' else None
    features = tmp_path / 'features.hdf5'
    if not features.exists():
        write_random_features(features, annotations, 8, 20, key)
    return TemporalGroundingDataset(
        ann_file=str(tmp_path / 'annotations.json'),
        data_prefix=dict(features=str(features)),
        feature_key=key,
        pipeline=[
            dict(type='LoadClipFeatures'),
            dict(type='PoolClipFeatures', num_segments=SEGMENTS[name]),
            dict(type='PackGroundingInputs'),
        ],
    )


@pytest.mark.parametrize('split', SIZES)
def test_every_video_passes_the_pipeline(shared, tmp_path, split):
    dataset = build(shared, tmp_path, split)
    videos, sentences = SIZES[split]
    assert len(dataset) == videos
    counted = 0
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        moments = np.array(info['moments'])
        counted += len(info['sentences'])
        assert len(moments) == len(info['sentences']) == len(info['sentence_index'])
        assert (moments[:, 0] < moments[:, 1]).all()
        assert moments.min() >= 0
        assert moments.max() <= info['duration']
    assert counted == sentences
    for index in range(0, videos, max(1, videos // 50)):
        packed = dataset[index]
        assert packed['inputs'].shape == (SEGMENTS[split.split('/')[0]], 8)
        sample = packed['data_samples']
        assert sample.gt_instances.moments.shape == (len(sample.sentences), 2)


def calls_of(function):
    """Its result, and how many functions it called."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ('call', 'c_call')

    sys.setprofile(count)
    try:
        return function(), calls
    finally:
        sys.setprofile(None)


def test_a_dataset_is_built_in_time_and_memory_in_proportion_to_its_sentences(shared, tmp_path):
    costs = []
    for videos in (None, 1000):  # the features are written with the first, for all
        build(shared, tmp_path, 'activitynet/train', videos)
        dataset, calls = calls_of(lambda n=videos: build(shared, tmp_path, 'activitynet/train', n))
        costs.append(
            calls
            / sum(len(dataset.get_data_info(index)['sentences']) for index in range(len(dataset)))
        )
        # strings and seconds: about as large as the annotation file, and not a map per sentence
        assert dataset.data_bytes.nbytes < 2 * (tmp_path / 'annotations.json').stat().st_size
    assert costs[0] < 1.25 * costs[1]


@pytest.mark.parametrize(
    'name', ['tacos_pool', 'charades_pool', 'charades_conv', 'activitynet_pool', 'activitynet_conv']
)
def test_samples_agree_with_the_published_code(golden, tmp_path, name):
    figures = golden(name)
    config = json.loads(str(figures['config_json']))
    key = 'c3d_features' if config['dataset'] == 'activitynet' else None
    (tmp_path / 'train.json').write_text(str(figures['annotation_json']))
    with h5py.File(tmp_path / 'features.hdf5', 'w') as file:
        for video_id in figures['video_order']:
            file[f'{video_id}/{key}' if key else str(video_id)] = figures[f'feat/{video_id}']
    dataset = TemporalGroundingDataset(
        ann_file='train.json',
        data_root=str(tmp_path),
        data_prefix=dict(features='features.hdf5'),
        feature_key=key,
        pipeline=[
            dict(type='LoadClipFeatures'),
            dict(type='PoolClipFeatures', num_segments=config['num_pre_clips']),
            dict(type='PackGroundingInputs'),
        ],
    )
    assert len(dataset) == len(figures['video_order'])
    for index, video_id in enumerate(figures['video_order']):
        packed = dataset[index]
        sample = packed['data_samples']
        assert sample.video_id == video_id
        assert sample.duration == figures['durations'][index]
        np.testing.assert_array_equal(sample.gt_instances.moments, figures[f'moments/{index}'])
        expected = figures['pooled_feats'][index]
        assert np.abs(packed['inputs'].numpy() - expected).max() <= 1e-6 * np.abs(expected).max()
