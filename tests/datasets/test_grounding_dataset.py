"""Videos with sentences as samples, from the file to the batch."""

import copy
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
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmn_plugin.datasets import (
    FeatureError,
    PackGroundingInputs,
    TemporalGroundingDataset,
    grounding_dataset,
    stack_videos,
)
from mmn_plugin.errors import InputError
from mmn_plugin.structures import GroundingDataSample, true_windows
from mmn_plugin.structures.annotations import AnnotationError


@pytest.fixture
def build(corpus, pipeline):
    """A dataset on the corpus, with other settings where given."""

    def make(**settings):
        options = dict(
            ann_file='train.json',
            data_root=str(corpus),
            data_prefix=dict(features='features.hdf5'),
            pipeline=pipeline,
        )
        return TemporalGroundingDataset(**{**options, **settings})

    return make


def test_a_sample_is_a_video_with_its_usable_sentences(build):
    dataset = build()
    assert len(dataset) == 2
    sample = dataset[0]['data_samples']
    assert (sample.video_id, sample.duration) == ('kitchen.avi', 20.0)
    assert sample.sentences == ['He took out pot', 'He washed plate']
    assert sample.sentence_index == [0, 2]  # the reversed one is dropped
    np.testing.assert_array_equal(sample.gt_instances.moments, [[0, 4], [10, 20]])
    assert sample.gt_instances.moments.dtype == torch.float32
    other = dataset[1]['data_samples']
    assert other.sentences == ['a dog runs.', ' A dog sleeps.']  # exactly as annotated
    np.testing.assert_array_equal(other.gt_instances.moments, [[0, 4.5], [10, 30.5]])  # clamped
    inputs = dataset[0]['inputs']
    assert (inputs.shape, inputs.dtype) == ((4, 5), torch.float32)
    info = dataset.get_data_info(0)
    assert info['windows'] == [[(0.0, 4.0)], [(10.0, 20.0)]]
    assert not any(isinstance(value, torch.Tensor | np.ndarray) for value in info.values())


def windows_of(sample):
    return [own.tolist() for own in sample.windows]


def test_a_sample_knows_the_windows_of_each_of_its_sentences(corpus, build):
    sample = build()[0]['data_samples']
    assert windows_of(sample) == [[[0, 4]], [[10, 20]]]
    assert sample.gt_instances.all_keys() == ['moments']  # as where sentences have one moment each
    entry = dict(
        duration=20.0,
        timestamps=[[], [[6, 8], [1, 3]], [0, 20], []],
        sentences=['absent', 'twice', 'once', 'absent as well'],
    )
    (corpus / 'train.json').write_text(json.dumps({'kitchen.avi': entry}))
    sample = build()[0]['data_samples']
    assert windows_of(sample) == [[], [[6, 8], [1, 3]], [[0, 20]], []]
    assert sample.gt_instances.sentence.tolist() == [1, 1, 2]
    assert sample.gt_instances.moments.dtype == torch.float32
    entry.update(timestamps=[[]], sentences=['absent'])
    (corpus / 'train.json').write_text(json.dumps({'kitchen.avi': entry}))
    (own,) = build()[0]['data_samples'].windows
    assert own.shape == (0, 2)


@pytest.mark.parametrize('key', ['moments', 'windows'])
@pytest.mark.parametrize('kind', [list, np.array, torch.tensor])
def test_a_pipeline_may_give_one_moment_for_each_sentence(key, kind):
    given = {key: kind([[0.0, 4.0], [1.5, 2.0]])}
    results = dict(features=np.ones((4, 5)), video_id='v', duration=9, sentences=['a', 'b'])
    sample = PackGroundingInputs().transform(results | given)['data_samples']
    assert sample.gt_instances.moments.tolist() == [[0, 4], [1.5, 2]]
    assert windows_of(sample) == [[[0, 4]], [[1.5, 2]]]


def test_windows_of_more_or_fewer_sentences_than_there_are_are_refused():
    results = dict(features=np.ones((4, 5)), video_id='v', duration=9, sentences=['a', 'b'])
    for windows in ([[0, 4]], [[[0, 4]], [], []]):
        with pytest.raises(InputError, match=rf"'v' has windows of {len(windows)} sentences, but"):
            PackGroundingInputs().transform(results | dict(windows=windows))


def test_a_weak_sample_has_every_sentence_and_no_ground_truth(build):
    dataset = build(weak=True)
    sample = dataset[0]['data_samples']
    assert sample.sentences == ['He took out pot', 'reversed', 'He washed plate']
    assert sample.sentence_index == [0, 1, 2]
    assert 'gt_instances' not in sample
    assert 'windows' not in dataset.get_data_info(0)


def test_weak_training_does_not_see_what_does_not_occur_and_tells_how_much(
    corpus, build, monkeypatch
):
    entry = dict(duration=20.0, timestamps=[[], [[1, 3], [6, 8]]], sentences=['absent', 'twice'])
    other = dict(duration=9.0, timestamps=[[], []], sentences=['absent', 'absent as well'])
    (corpus / 'train.json').write_text(json.dumps({'kitchen.avi': entry, 'garden': other}))
    said = []
    monkeypatch.setattr(
        grounding_dataset, 'print_log', lambda message, *_, **__: said.append(message)
    )
    dataset = build(weak=True)
    sample = dataset[0]['data_samples']
    assert len(dataset) == 1
    assert (sample.sentences, sample.sentence_index) == (['twice'], [1])
    assert '3 sentences that do not occur in their video' in ' '.join(said)
    entry['timestamps'] = [[], []]
    (corpus / 'train.json').write_text(json.dumps({'kitchen.avi': entry}))
    with pytest.raises(InputError, match='has no usable sentence: there is none'):
        build(weak=True)


@pytest.mark.parametrize('kind', [str, Path, os.fsencode])
def test_absolute_paths_of_any_kind_ignore_the_root(corpus, build, kind):
    for prefix in (kind(corpus / 'features.hdf5'), [kind(corpus / 'features.hdf5')]):
        ann_file = kind(corpus / 'train.json')
        dataset = build(ann_file=ann_file, data_root='elsewhere', data_prefix=dict(features=prefix))
        assert dataset.feature_files == [str(corpus / 'features.hdf5')]
        assert dataset[0]['inputs'].shape == (4, 5)


def test_it_is_built_from_the_registry_and_without_features(corpus):
    settings = dict(ann_file=str(corpus / 'train.json'))
    dataset = DATASETS.build(dict(type='TemporalGroundingDataset', **settings))
    assert dataset.feature_size == 0
    assert 'feature_files' not in dataset[0]
    assert dataset.metainfo['dataset_type'] == 'temporal_grounding'


def test_several_feature_files_are_joined(corpus, build):
    with h5py.File(corpus / 'flow.hdf5', 'w') as file:
        file['kitchen.avi/flow'] = np.ones((9, 3), np.float32)  # another length
        file['garden/flow'] = np.ones((2, 3), np.float32)
    prefix = dict(features=['features.hdf5', 'flow.hdf5'])
    dataset = build(data_prefix=prefix, feature_key=[None, 'flow'])
    assert dataset.feature_size == 8
    inputs = dataset[0]['inputs']
    assert inputs.shape == (4, 8)
    np.testing.assert_array_equal(inputs[:, :5], build()[0]['inputs'])
    np.testing.assert_allclose(inputs[:, 5:], 3**-0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ('settings', 'error', 'message'),
    [
        (dict(feature_key=['a', 'b']), ValueError, '2 entries for 1 feature files'),
        (dict(feature_key='c3d_features'), FeatureError, "is an array.*='c3d_features'.*None"),
        (dict(ann_file='val.json'), FileNotFoundError, r'val\.json does not exist.*train\.json'),
        (
            dict(data_prefix=dict(features='c3d.hdf5')),
            FileNotFoundError,
            r'c3d\.hdf5 do not exist.*features\.hdf5',
        ),
    ],
)
def test_settings_that_do_not_fit_the_files_end_at_building(build, settings, error, message):
    with pytest.raises(error, match=message):
        build(**settings)


def test_unusable_features_are_named_at_building_or_with_their_video(corpus, build):
    path = corpus / 'features.hdf5'
    with h5py.File(path, 'a') as file:  # refused while a reader of a dataset is open
        file['garden'][0, 0] = np.nan
    with pytest.raises(FeatureError, match=r"video 'garden' holds NaN or Inf"):
        build()[1]
    with h5py.File(path, 'a') as file:
        del file['garden']
        file['garden'] = np.ones((4, 6), np.float32)
    with pytest.raises(FeatureError, match=r"video 'garden' has features of size 6.*size 5"):
        build()[1]
    with h5py.File(path, 'a') as file:
        del file['garden']
    with pytest.raises(FeatureError, match=r'1 of the 2 videos in .* are absent: garden'):
        build()
    path.write_bytes(b'\x89HDF\r\n\x1a\n' + bytes(200))
    with pytest.raises(FeatureError, match=r'features\.hdf5: cannot read'):
        build()


@pytest.mark.parametrize(
    ('duration', 'moment', 'error', 'message'),
    [
        (9.0, [5, 5], ValueError, 'no usable sentence'),
        (-1.0, [5, 6], AnnotationError, r'garden.*duration=-1'),
    ],
)
def test_annotations_of_no_use_are_refused(corpus, build, duration, moment, error, message):
    video = dict(duration=duration, timestamps=[moment], sentences=['x'])
    (corpus / 'train.json').write_text(json.dumps({'garden': video}))
    with pytest.raises(error, match=message):
        build()


def test_workers_give_in_one_tensor_what_the_main_process_reads(build):
    dataset = build()
    expected = [dataset[i] for i in range(2)]  # open here before the workers start
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=2,
            num_workers=1,
            collate_fn=dict(type='stack_videos'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            multiprocessing_context='fork',
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        (batch,) = loader
    assert torch.equal(batch['inputs'], torch.stack([sample['inputs'] for sample in expected]))
    for found, sample in zip(batch['data_samples'], expected, strict=True):
        truth = sample['data_samples'].gt_instances.moments
        assert torch.equal(found.gt_instances.moments, truth)


def test_a_batch_is_as_mmengine_collates_it_but_for_inputs_of_one_shape(build):
    batch = [build()[i] for i in range(2)]
    stacked, plain = stack_videos(batch), pseudo_collate(batch)
    assert torch.equal(stacked['inputs'], torch.stack(plain['inputs']))
    assert stacked['data_samples'] == plain['data_samples']
    batch[0]['inputs'] = batch[0]['inputs'][:3]
    assert [len(features) for features in stack_videos(batch)['inputs']] == [3, 4]


def test_a_sample_comes_back_from_another_process_or_a_copy_whole():
    sample = GroundingDataSample(metainfo=dict(video_id='v', sentences=['a', 'b']))
    sample.gt_instances = InstanceData(moments=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    for again in (pickle.loads(pickle.dumps(sample)), copy.deepcopy(sample)):
        assert torch.equal(again.gt_instances.moments, sample.gt_instances.moments)
        assert again.gt_instances.moments.dtype == torch.float32
        assert again.sentences == sample.sentences
        again.gt_instances.moments[0, 0] = 9.0
        assert sample.gt_instances.moments[0, 0] == 1
    several = GroundingDataSample(metainfo=dict(sentences=['a', 'b', 'c']))
    several.gt_instances = true_windows([[], [(1, 2), (3, 4)], []])
    for again in (pickle.loads(pickle.dumps(several)), copy.deepcopy(several)):
        assert windows_of(again) == [[], [[1, 2], [3, 4]], []]
    sample.gt_instances.labels = torch.ones(2)
    sample.pred_instances = InstanceData(scores=torch.ones(2, 5))
    again = pickle.loads(pickle.dumps(sample))
    assert torch.equal(again.gt_instances.labels, torch.ones(2))
    assert torch.equal(again.pred_instances.scores, torch.ones(2, 5))
