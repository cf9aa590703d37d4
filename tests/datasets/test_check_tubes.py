"""`mmn check` on tubes: sound files pass, each fault is named."""

import dataclasses

import h5py
import numpy as np
import pytest
from helpers.made_up_tubes import random_tube, random_video, write_tube_config, write_tubes
from helpers.run_tool import output_of

from mmn_plugin.config import load_config
from mmn_plugin.datasets import TubeFile, TubeVideo, check_config, write_tube_file

FLOW = 'train_1/features/flow'


@pytest.fixture
def corpus(tmp_path):
    return write_tubes(tmp_path / 'corpus')


@pytest.fixture
def findings(corpus, tmp_path):
    """Level, split and kind of what is found, and the examples of all."""
    config = write_tube_config(tmp_path / 'tiny.py', corpus)

    def check(options=None, splits=('train',), **how):
        report = check_config(load_config(str(config), options), splits, **how)
        return (
            {(f.level, f.split, f.what) for f in report.findings},
            ' '.join(example for f in report.findings for example in f.examples),
        )

    return check


def test_a_sound_corpus_passes_with_its_counts(corpus, tmp_path):
    config = write_tube_config(tmp_path / 'tiny.py', corpus)
    output = output_of('mmn', 'check', config)
    assert 'PASSED' in output
    report = check_config(load_config(str(config)))
    assert report.counts['train'] == dict(
        videos=6, sentences=9, tubes=18, feature_size=7, most_tokens=7
    )
    assert {(f.level, f.what) for f in report.findings} == {
        ('warning', 'video without candidate tubes: counts as not found'),
        ('info', 'videos in both splits'),
    }


def test_the_published_config_says_what_is_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = output_of('mmn', 'check', 'mmn_hcstvg.py', '--split', 'train', code=1)
    assert 'unusable tube file' in output
    assert 'tube file data/hcstvg/train.h5 does not exist' in output


CHANGED = [  # an array of the file, what becomes of it, what is found, and how it is told
    (FLOW, lambda v: v * np.nan, 'unusable video', "stream 'flow': features of shape"),
    ('train_1/tubes', lambda v: v[:, [0, 3, 4, 1, 2]], 'unusable video', 'ends before it begins'),
    ('train_1/ground_truth', lambda v: v * [-1, 1, 1, 1, 1], 'unusable video', 'frames are not'),
    ('train_1/sentences', lambda v: b' ', 'unusable video', 'sentence 0 is empty'),
    (FLOW, np.zeros_like, 'features are all zero', "'train_1', stream 'flow'"),
    (FLOW, np.ones_like, 'features never change: all rows are the same', "stream 'flow'"),
]


@pytest.mark.parametrize(('path', 'values', 'what', 'example'), CHANGED)
def test_an_unusable_video_is_named_where_values_are_looked_at(
    findings, corpus, path, values, what, example
):
    with h5py.File(corpus / 'train.h5', 'a') as file:
        file[path][...] = values(file[path][()])
    found, examples = findings()
    assert found == {('warning' if 'never change' in what else 'error', 'train', what)}
    assert "train.h5: video 'train_1'" in examples
    assert example in examples
    if path == FLOW:
        assert findings(quick=True)[0] == set()


def test_damaged_groups_are_named(findings, corpus):
    with h5py.File(corpus / 'train.h5', 'a') as file:
        del file['train_2/tubes'], file['train_3/sentences']
        file['loose'] = np.zeros(3)
    found, examples = findings()
    assert found == {('error', 'train', 'unusable video')}
    for name in ('train_2', 'train_3', 'loose'):
        assert f"video '{name}' is not there, or lacks sentences or tubes" in examples


WIDE = dict(appearance=[np.eye(4, dtype=np.float32)] * 2, flow=[np.eye(9, dtype=np.float32)] * 2)
ADDED = [  # what is special about a video more, what is found, and how it is told
    (
        dict(ground_truth=[random_tube(np.random.default_rng(0), 9, 500)]),
        [('warning', 'train', 'sentence whose true tube no candidate meets')],
        "video 'new', sentence 0",
    ),
    (dict(ground_truth=[]), [('error', 'train', 'video without ground truth')], "video 'new'"),
    (
        dict(features=WIDE),
        [('error', 'train', 'feature size differs between videos')],
        "'new': streams ['appearance', 'flow'] of sizes [4, 9], most others [4, 3]",
    ),
    (
        dict(video_id='test_1', sentences=['xyzzy']),
        [
            ('error', 'train', 'sentence without a known word'),
            ('error', 'train, test', 'videos in both splits'),
            ('warning', 'test', 'video without candidate tubes: counts as not found'),
        ],
        "video 'test_1', sentence 0 ('xyzzy')",
    ),
]


@pytest.mark.parametrize(('parts', 'expected', 'example'), ADDED)
def test_what_is_wrong_with_one_of_many_videos_is_told(findings, corpus, parts, expected, example):
    file = TubeFile(corpus / 'train.h5')
    videos = [file.read(video_id, ['appearance', 'flow']) for video_id in file.video_ids()]
    video = dataclasses.replace(random_video(np.random.default_rng(7), 'new', 2), **parts)
    write_tube_file(corpus / 'train.h5', [*videos, video])
    found, examples = findings(splits=['train', 'test'] if 'video_id' in parts else ['train'])
    assert found == {*expected}
    assert example in examples
    if parts == dict(ground_truth=[]):  # of some, which no metric takes
        test = dict(train_dataloader=dict(dataset=dict(test_mode=True)))
        assert findings(test)[0] == {*expected}


def test_a_split_without_tubes_or_truth_is_told(findings, corpus):
    write_tube_file(corpus / 'test.h5', [TubeVideo('a', ['a red box'])])
    assert findings(splits=['test'])[0] == {
        ('warning', 'test', 'video without candidate tubes: counts as not found'),
        ('error', 'test', 'no video with a candidate tube'),
        ('info', 'test', 'video without ground truth'),
    }


def test_streams_and_sizes_are_compared_with_the_config(findings):
    found, examples = findings({'train_dataloader.dataset.streams': ['appearance', 'csn']})
    assert ('error', 'train', 'unusable video') in found
    assert "has no stream 'csn', but ['appearance', 'flow']" in examples
    found, examples = findings({'model.backbone.in_channels': 8})
    assert found == {('error', 'train', 'wrong feature size')}
    assert 'D = 4 + 3 = 7' in examples
