"""Tube files and the dataset on them, with whatever real tubes bring."""

import os
import pickle
import shutil

import h5py
import numpy as np
import pytest
from helpers.made_up_tubes import SIZES, random_tube, random_video, write_tubes

from mmn_plugin.datasets import (
    PoolClipFeatures,
    TubeError,
    TubeFile,
    TubeGroundingDataset,
    write_tube_file,
)

PIPELINE = [
    dict(type='LoadTubes'),
    dict(type='PoolTubeFeatures', num_segments=8),
    dict(type='PackTubeInputs'),
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def corpus(tmp_path):
    return write_tubes(tmp_path)


def dataset(corpus, split='train', streams=('appearance', 'flow'), **kwargs):
    return TubeGroundingDataset(f'{split}.h5', streams, str(corpus), PIPELINE, **kwargs)


def test_a_file_gives_back_what_was_written(tmp_path, rng):
    video = random_video(rng, 'one', 3, 2)
    assert write_tube_file(tmp_path / 'x.h5', [video], made_by='test') == 1
    found = TubeFile(tmp_path / 'x.h5').read('one', ['flow'])
    assert found.sentences == video.sentences
    for ours, theirs in zip(
        found.tubes + found.ground_truth + found.features['flow'],
        video.tubes + video.ground_truth + video.features['flow'],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert list(found.features) == ['flow']


def test_streams_of_unequal_length_are_pooled_each_by_itself(corpus):
    data = dataset(corpus, streams=['flow', 'appearance'])
    raw = TubeFile(corpus / 'train.h5').read('train_0', SIZES)
    sample = data[0]
    assert sample['inputs'].shape == (len(raw.tubes), 8, 7)
    assert data.feature_size == 7
    lengths = {len(raw.features[stream][0]) for stream in SIZES}
    assert len(lengths) == 2
    expected = np.concatenate(
        [
            PoolClipFeatures.pool(raw.features[stream][0], 8, clamp_last=False)
            for stream in ('flow', 'appearance')
        ],
        1,
    )
    np.testing.assert_array_equal(sample['inputs'][0].numpy(), expected)


def test_videos_without_tubes_are_left_out_of_training_and_kept_in_a_test(corpus):
    ids = [dataset(corpus, 'test')[i]['data_samples'].video_id for i in range(4)]
    assert 'test_2' not in ids
    kept = dataset(corpus, 'test', test_mode=True)
    assert len(kept) == 5
    assert kept[2]['inputs'].shape == (0, 8, 7)
    assert kept[2]['data_samples'].tubes == []


def test_a_video_without_ground_truth_is_for_tests_alone(tmp_path, rng):
    video = random_video(rng, 'secret')
    video.ground_truth = []
    write_tube_file(tmp_path / 'train.h5', [video])
    with pytest.raises(TubeError, match=r"'secret' has no ground truth.*--submission"):
        dataset(tmp_path)
    assert 'gt_instances' not in dataset(tmp_path, test_mode=True)[0]['data_samples']


def test_a_file_without_any_tube_is_refused(tmp_path, rng):
    write_tube_file(tmp_path / 'x.h5', [random_video(rng, 'a', 0)])
    with pytest.raises(TubeError, match='no video with a candidate tube'):
        TubeGroundingDataset('x.h5', ['flow'], str(tmp_path), test_mode=True)


def test_a_dataset_travels_to_a_worker(corpus):
    data = pickle.loads(pickle.dumps(dataset(corpus)))
    sample = pickle.loads(pickle.dumps(data[1]))['data_samples']
    assert len(sample.gt_instances.tubes) == len(sample.sentences) == 2


@pytest.mark.parametrize('how', ['replaced', 'removed'])
def test_a_tube_file_that_changes_while_in_use_is_noticed(corpus, tmp_path, how):
    data, file = dataset(corpus), TubeFile(corpus / 'train.h5')
    file.read('train_0')
    worker = pickle.loads(pickle.dumps(dataset(corpus)))  # opens the file after the change
    data[0]
    os.replace(corpus / 'train.h5', tmp_path / 'old.h5')
    if how == 'replaced':
        shutil.copy(tmp_path / 'old.h5', corpus / 'train.h5')
    with pytest.raises(TubeError, match=rf'train\.h5 was {how}'):
        file.read('train_0')
    with pytest.raises(TubeError, match=rf'train\.h5 was {how}'):
        data[1]
    with pytest.raises((TubeError, FileNotFoundError), match=r'train\.h5'):
        worker[0]


def set_item(items, index, value):
    items[index] = value


def spoil(array, index, value):
    array[index] = value


FAULTS = {  # message: what is done to a video of three tubes
    'tube 1: its frames are not whole numbers that rise': lambda v: set_item(
        v.tubes, 1, v.tubes[0][::-1]
    ),
    'tube 0: its frames are not whole numbers': lambda v: spoil(v.tubes[0], (0, 0), 0.5),
    'not width and height': lambda v: spoil(v.tubes[1], (0, slice(3, 5)), -1),
    'true tube of sentence 0 has no box': lambda v: set_item(
        v.ground_truth, 0, np.zeros((0, 5), np.float32)
    ),
    r'tube 2 has shape \(\d+, 4\)': lambda v: set_item(v.tubes, 2, v.tubes[2][:, 1:]),
    'tube 0 holds NaN': lambda v: spoil(v.tubes[0], (2, 3), np.nan),
    "stream 'flow' has features of 2 tubes, but there are 3": lambda v: v.features['flow'].pop(),
    "tube 1, stream 'flow': features of shape": lambda v: set_item(
        v.features['flow'], 1, np.zeros((0, 3), np.float32)
    ),
    'features of size 9, those of tube 0 have 3': lambda v: set_item(
        v.features['flow'], 1, np.zeros((4, 9), np.float32)
    ),
    "tube 1, stream 'flow': features hold NaN": lambda v: spoil(
        v.features['flow'][1], slice(None), np.inf
    ),
    'sentence 0 is empty': lambda v: set_item(v.sentences, 0, ' '),
    '1 sentences but 2 true tubes': lambda v: v.ground_truth.append(v.ground_truth[0]),
}


@pytest.mark.parametrize('message', FAULTS)
def test_what_has_no_meaning_is_refused_by_name(tmp_path, rng, message):
    video = random_video(rng, 'bad', 3)
    FAULTS[message](video)
    with pytest.raises(TubeError, match=message) as error:
        write_tube_file(tmp_path / 'x.h5', [video])
    assert "'bad'" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_gaps_single_boxes_and_boxes_outside_the_picture_are_allowed(tmp_path, rng):
    video = random_video(rng, 'a', 2)
    video.tubes[0] = np.delete(random_tube(rng, 30), [3, 4, 17], axis=0)
    video.tubes[1] = np.array([[5, -30, -20, 4000, 3000]], np.float32)
    video.ground_truth[0] = np.delete(video.ground_truth[0], [2, 9], axis=0)
    write_tube_file(tmp_path / 'x.h5', [video])
    found = TubeFile(tmp_path / 'x.h5').read('a')
    np.testing.assert_array_equal(found.tubes[1], video.tubes[1])
    assert len(found.ground_truth[0]) == len(video.ground_truth[0])


def test_wrong_files_streams_and_sizes_are_named(corpus, rng):
    with pytest.raises(FileNotFoundError, match=r'absent\.h5.*train\.h5'):
        dataset(corpus, 'absent')
    with pytest.raises(TubeError, match=r"no stream 'csn', but \['appearance', 'flow'\]"):
        dataset(corpus, streams=['csn'])
    with pytest.raises(ValueError, match='list with at least one name'):
        dataset(corpus, streams='flow')
    with h5py.File(corpus / 'other.h5', 'w') as file:
        file['a'] = np.zeros(3)
    with pytest.raises(TubeError, match='not a tube file'):
        dataset(corpus, 'other')
    (corpus / 'text.h5').write_text('no HDF5')
    with pytest.raises(TubeError, match='damaged or incomplete'):
        dataset(corpus, 'text')
    wide = random_video(rng, 'wide')
    wide.features['flow'] = [np.zeros((2, 9), np.float32)] * 3
    write_tube_file(corpus / 'sizes.h5', [random_video(rng, 'narrow'), wide])
    with pytest.raises(TubeError, match=r"'wide'.*\[4, 9\].*\[4, 3\]"):
        dataset(corpus, 'sizes')
    with pytest.raises(TubeError, match='occurs twice'):
        write_tube_file(corpus / 'y.h5', [random_video(rng, 'a'), random_video(rng, 'a')])
