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
    return TubeGroundingDataset(f'{split}.h5', streams, str(corpus), pipeline=PIPELINE, **kwargs)


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


def test_a_video_without_ground_truth_is_for_tests_alone_and_one_without_tubes_too(tmp_path, rng):
    video = random_video(rng, 'secret')
    video.ground_truth = []
    write_tube_file(tmp_path / 'train.h5', [video])
    with pytest.raises(TubeError, match=r"'secret' has no ground truth.*--submission"):
        dataset(tmp_path)
    assert 'gt_instances' not in dataset(tmp_path, test_mode=True)[0]['data_samples']
    write_tube_file(tmp_path / 'train.h5', [random_video(rng, 'a', 0)])
    with pytest.raises(TubeError, match='no video with a candidate tube'):
        dataset(tmp_path, test_mode=True)


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


def changed(tubes, index, value):
    tubes[index] = value


ZEROS = np.zeros((4, 9), np.float32)
FAULTS = {  # message: what is done to a video of three tubes
    'tube 1: its frames are not whole': lambda v: changed(v.tubes, 1, v.tubes[0][::-1]),
    'tube 0: its frames are not whole numbers': lambda v: changed(v.tubes[0], (0, 0), 0.5),
    'tube 2: its frames .* rise from 0': lambda v: changed(v.tubes[2], (0, 0), -3),
    'not width and height': lambda v: changed(v.tubes[1], (0, slice(3, 5)), -1),
    r'true tube of sentence 0 has shape \(0, 9\)': lambda v: changed(v.ground_truth, 0, ZEROS[:0]),
    r'tube 2 has shape \(\d+, 4\)': lambda v: changed(v.tubes, 2, v.tubes[2][:, 1:]),
    'tube 0 holds NaN': lambda v: changed(v.tubes[0], (2, 3), np.nan),
    "stream 'flow' has features of 2 tubes, but there are 3": lambda v: v.features['flow'].pop(),
    r"tube 1, stream 'flow': features of shape \(0, 9\)": lambda v: changed(
        v.features['flow'], 1, ZEROS[:0]
    ),
    r'shape \(4, 9\); expected finite numbers \(rows, 3\)': lambda v: changed(
        v.features['flow'], 1, ZEROS
    ),
    "tube 1, stream 'flow': .*finite": lambda v: changed(v.features['flow'][1], 0, np.inf),
    'sentence 0 is empty': lambda v: changed(v.sentences, 0, ' '),
    '1 sentences but 2 true tubes': lambda v: v.ground_truth.append(v.ground_truth[0]),
}


@pytest.mark.parametrize('message', FAULTS)
def test_what_has_no_meaning_is_refused_by_name(tmp_path, rng, message):
    video = random_video(rng, 'bad', 3)
    FAULTS[message](video)
    with pytest.raises(TubeError, match=f"'bad'.*{message}"):
        write_tube_file(tmp_path / 'x.h5', [video])
    assert not list(tmp_path.iterdir())


def test_a_file_gives_back_what_was_written_gaps_and_boxes_outside_the_picture_too(tmp_path, rng):
    video = random_video(rng, 'a', 2)
    video.tubes[0] = np.delete(random_tube(rng, 30), [3, 4, 17], axis=0)
    video.tubes[1] = np.array([[5, -30, -20, 4000, 3000]], np.float32)
    video.ground_truth[0] = np.delete(video.ground_truth[0], [2, 9], axis=0)
    assert write_tube_file(tmp_path / 'x.h5', [video], made_by='test') == 1
    found = TubeFile(tmp_path / 'x.h5').read('a', ['flow'])
    assert (found.sentences, list(found.features)) == (video.sentences, ['flow'])
    for ours, theirs in zip(
        found.tubes + found.ground_truth + found.features['flow'],
        video.tubes + video.ground_truth + video.features['flow'],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


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
    with pytest.raises(TubeError, match=r'cannot be read as HDF5.*convert\.py'):
        dataset(corpus, 'text')
    wide = random_video(rng, 'wide')
    wide.features['flow'] = [np.zeros((2, 9), np.float32)] * 3
    write_tube_file(corpus / 'sizes.h5', [random_video(rng, 'narrow'), wide])
    with pytest.raises(TubeError, match=r"'wide'.*\[4, 9\].*\[4, 3\]"):
        dataset(corpus, 'sizes')
    with pytest.raises(TubeError, match='occurs twice'):
        write_tube_file(corpus / 'y.h5', [random_video(rng, 'a'), random_video(rng, 'a')])
