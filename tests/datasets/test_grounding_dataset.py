import json
import os
import pickle
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from mmaction.registry import DATASETS
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from mmn_plugin.datasets import (
    FeatureError,
    TemporalGroundingDataset,
    open_feature_store,
    write_random_features,
)
from mmn_plugin.structures.annotations import AnnotationError


def build(corpus, **kwargs):
    options = dict(
        ann_file='train.json', data_root=str(corpus), data_prefix=dict(features='features.hdf5')
    )
    return TemporalGroundingDataset(**{**options, **kwargs})


@pytest.mark.parametrize('kind', [Path, os.fsencode])
def test_paths_may_be_of_any_kind(corpus, pipeline, kind):
    for prefix in (kind(corpus / 'features.hdf5'), [kind(corpus / 'features.hdf5')]):
        dataset = TemporalGroundingDataset(
            ann_file=kind(corpus / 'train.json'),
            data_prefix=dict(features=prefix),
            pipeline=pipeline,
        )
        assert dataset.feature_files == [str(corpus / 'features.hdf5')]
        assert dataset[0]['inputs'].shape == (4, 5)


def test_a_sample_is_a_video_with_its_usable_sentences(corpus, pipeline):
    dataset = build(corpus, pipeline=pipeline)
    assert len(dataset) == 2
    sample = dataset[0]['data_samples']
    assert sample.video_id == 'kitchen.avi'
    assert sample.duration == 20.0
    assert sample.sentences == ['He took out pot', 'He washed plate']
    assert sample.sentence_index == [0, 2]  # the reversed one is dropped
    np.testing.assert_array_equal(sample.gt_instances.moments, [[0, 4], [10, 20]])
    assert sample.gt_instances.moments.dtype == torch.float32


def test_a_weak_sample_has_every_sentence_and_no_ground_truth(corpus, pipeline):
    dataset = build(corpus, pipeline=pipeline, weak=True)
    sample = dataset[0]['data_samples']
    assert sample.sentences == ['He took out pot', 'reversed', 'He washed plate']
    assert sample.sentence_index == [0, 1, 2]
    assert 'gt_instances' not in sample
    assert 'moments' not in dataset.get_data_info(0)


def test_moments_in_seconds_are_clamped(corpus, pipeline):
    sample = build(corpus, pipeline=pipeline)[1]['data_samples']
    assert sample.sentences == ['a dog runs.', ' A dog sleeps.']  # exactly as annotated
    np.testing.assert_array_equal(sample.gt_instances.moments, [[0, 4.5], [10, 30.5]])


def test_inputs_are_pooled_features(corpus, pipeline):
    inputs = build(corpus, pipeline=pipeline)[0]['inputs']
    assert inputs.shape == (4, 5)
    assert inputs.dtype == torch.float32


def test_it_is_built_from_the_registry(corpus):
    prefix = dict(features=str(corpus / 'features.hdf5'))
    settings = dict(ann_file=str(corpus / 'train.json'), data_prefix=prefix)
    dataset = DATASETS.build(dict(type='TemporalGroundingDataset', **settings))
    assert dataset.feature_size == 5
    assert dataset.metainfo['dataset_type'] == 'temporal_grounding'


def test_an_unknown_dataset_name_is_named(corpus):
    with pytest.raises(KeyError, match='CharadesGroundingDataset is not in the'):
        DATASETS.build(dict(type='CharadesGroundingDataset', ann_file='train.json'))


def test_absolute_paths_ignore_the_root(corpus):
    dataset = build(
        corpus,
        data_root='elsewhere',
        ann_file=str(corpus / 'train.json'),
        data_prefix=dict(features=str(corpus / 'features.hdf5')),
    )
    assert len(dataset) == 2


def test_it_works_without_features(corpus):
    dataset = build(corpus, data_prefix=None)
    assert dataset.feature_size == 0
    assert 'feature_files' not in dataset[0]


def test_several_feature_files_are_joined(corpus, pipeline):
    with h5py.File(corpus / 'flow.hdf5', 'w') as file:
        file['kitchen.avi/flow'] = np.ones((9, 3), np.float32)  # another length
        file['garden/flow'] = np.ones((2, 3), np.float32)
    dataset = build(
        corpus,
        data_prefix=dict(features=['features.hdf5', 'flow.hdf5']),
        feature_key=[None, 'flow'],
        pipeline=pipeline,
    )
    assert dataset.feature_size == 8
    inputs = dataset[0]['inputs']
    assert inputs.shape == (4, 8)
    single = build(corpus, pipeline=pipeline)[0]['inputs']
    np.testing.assert_array_equal(inputs[:, :5], single)
    np.testing.assert_allclose(inputs[:, 5:], 3**-0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(feature_key=['a', 'b']), ValueError, '2 entries for 1 feature files'),
        (dict(feature_key='c3d_features'), FeatureError, 'feature_key=None'),
        (dict(ann_file='val.json'), FileNotFoundError, r'val\.json does not exist.*train\.json'),
        (
            dict(data_prefix=dict(features='c3d.hdf5')),
            FileNotFoundError,
            r'c3d\.hdf5 do not exist.*features\.hdf5',
        ),
    ],
)
def test_settings_that_do_not_fit_the_files_end_at_building(corpus, settings, error, message):
    with pytest.raises(error, match=message):
        build(corpus, **settings)


def test_absent_videos_are_found_at_building(corpus):
    with h5py.File(corpus / 'features.hdf5', 'a') as file:
        del file['garden']
    with pytest.raises(FeatureError, match=r'1 of the 2 videos in .* are absent: garden'):
        build(corpus)


def test_a_corrupt_feature_file_is_found_at_building(corpus):
    (corpus / 'features.hdf5').write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(200))
    with pytest.raises(FeatureError, match=r'features\.hdf5: cannot read'):
        build(corpus)


def test_a_video_of_another_feature_size_is_named(corpus, pipeline):
    with h5py.File(corpus / 'features.hdf5', 'a') as file:
        del file['garden']
        file['garden'] = np.ones((4, 6), np.float32)
    dataset = build(corpus, pipeline=pipeline)
    with pytest.raises(FeatureError, match=r"video 'garden' has features of size 6.*size 5"):
        dataset[1]


def test_nan_in_a_video_is_named(corpus, pipeline):
    with h5py.File(corpus / 'features.hdf5', 'a') as file:
        file['garden'][0, 0] = np.nan
    with pytest.raises(FeatureError, match=r"video 'garden' holds NaN or Inf"):
        build(corpus, pipeline=pipeline)[1]


@pytest.mark.parametrize(
    ('duration', 'moment', 'error', 'message'),
    [
        (9.0, [5, 5], ValueError, 'no usable sentence'),
        (-1.0, [5, 6], AnnotationError, r'garden.*duration=-1'),
    ],
)
def test_annotations_of_no_use_are_refused(corpus, duration, moment, error, message):
    video = dict(duration=duration, timestamps=[moment], sentences=['x'])
    (corpus / 'train.json').write_text(json.dumps({'garden': video}))
    with pytest.raises(error, match=message):
        build(corpus)


def test_entries_hold_strings_and_seconds_only(corpus):
    info = build(corpus).get_data_info(0)
    tensors = [value for value in info.values() if isinstance(value, torch.Tensor | np.ndarray)]
    assert not tensors
    assert info['moments'] == [(0.0, 4.0), (10.0, 20.0)]


def test_nothing_stays_open_after_building(corpus):
    build(corpus)
    with h5py.File(corpus / 'features.hdf5', 'a') as file:  # refused while a reader is open
        assert len(file) == 2


def test_a_used_dataset_is_pickled_without_handles(corpus, pipeline):
    dataset = build(corpus, pipeline=pipeline)
    expected = dataset[0]['inputs']
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0]['inputs'], expected)


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_workers_read_what_the_main_process_reads(corpus, pipeline, method):
    dataset = build(corpus, pipeline=pipeline)
    expected = [dataset[i]['inputs'] for i in range(2)]  # open here before the workers start
    loader = DataLoader(
        torch.utils.data.ConcatDataset([dataset] * 10),
        batch_size=4,
        num_workers=2 if method == 'fork' else 1,
        multiprocessing_context=method,
        collate_fn=pseudo_collate,
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        batches = [inputs for batch in loader for inputs in batch['inputs']]
    assert len(batches) == 20
    for i, inputs in enumerate(batches):
        np.testing.assert_array_equal(inputs, expected[i % 2])


def test_random_features_serve_every_video(tmp_path):
    ids = [f'v_{i}' for i in range(50)]
    for key in (None, 'c3d_features'):
        path = tmp_path / f'{key}.hdf5'
        write_random_features(path, ids, size=6, num_rows=9, feature_key=key)
        store = open_feature_store(path, key)
        assert store.video_ids() == set(ids)
        assert store.read('v_49').shape == (9, 6)
        assert path.stat().st_size < 50_000
