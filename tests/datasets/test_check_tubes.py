"""`mmn check` on tubes: sound files pass, each fault is named."""

import dataclasses

import h5py
import numpy as np
import pytest
from helpers.made_up_tubes import random_tube, random_video, write_tube_config, write_tubes
from helpers.run_tool import run_tool

from mmn_plugin.config import load_config
from mmn_plugin.datasets import TubeFile, TubeVideo, check_config, write_tube_file


@pytest.fixture
def corpus(tmp_path):
    return write_tubes(tmp_path / 'corpus')


@pytest.fixture
def config(corpus, tmp_path):
    return write_tube_config(tmp_path / 'tiny.py', corpus)


def findings(config, options=None, **how):
    """Level, split and kind of what is found, and the examples of all."""
    report = check_config(load_config(str(config), options), **how)
    return (
        {(f.level, f.split, f.what) for f in report.findings},
        ' '.join(example for f in report.findings for example in f.examples),
    )


def add(corpus, name, **parts):
    """Add a video to a split's file, unchecked."""
    file = TubeFile(corpus / 'train.h5')
    videos = [file.read(video_id, ['appearance', 'flow']) for video_id in file.video_ids()]
    video = random_video(np.random.default_rng(7), name, 2)
    write_tube_file(corpus / 'train.h5', [*videos, dataclasses.replace(video, **parts)])


def test_a_sound_corpus_passes_with_its_counts(config):
    code, output = run_tool('mmn', 'check', config)
    assert code == 0, output
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
    code, output = run_tool('mmn', 'check', 'mmn_hcstvg.py', '--split', 'train')
    assert code == 1
    assert 'unusable tube file' in output
    assert 'tube file data/hcstvg/train.h5 does not exist' in output


def change(corpus, path, values):
    with h5py.File(corpus / 'train.h5', 'a') as file:
        file[path][...] = values(file[path][()])


@pytest.mark.parametrize(
    ('path', 'values', 'example'),
    [
        ('train_1/features/flow', lambda v: v * np.nan, "stream 'flow': features of shape"),
        ('train_1/tubes', lambda v: v[:, [0, 3, 4, 1, 2]], 'ends before it begins'),
        ('train_1/ground_truth', lambda v: v * [-1, 1, 1, 1, 1], 'frames are not whole numbers'),
        ('train_1/sentences', lambda v: b' ', 'sentence 0 is empty'),
    ],
)
def test_an_unusable_video_is_named(config, corpus, path, values, example):
    change(corpus, path, values)
    found, examples = findings(config, splits=['train'])
    assert found == {('error', 'train', 'unusable video')}
    assert "train.h5: video 'train_1'" in examples
    assert example in examples


def test_quick_looks_at_no_values(config, corpus):
    change(corpus, 'train_1/features/flow', lambda v: v * np.nan)
    assert findings(config, splits=['train'], quick=True)[0] == set()


@pytest.mark.parametrize(
    ('values', 'level', 'what'),
    [
        (np.zeros_like, 'error', 'features are all zero'),
        (np.ones_like, 'warning', 'features never change: all rows are the same'),
    ],
)
def test_features_without_content_are_named(config, corpus, values, level, what):
    change(corpus, 'train_1/features/flow', values)
    found, examples = findings(config, splits=['train'])
    assert found == {(level, 'train', what)}
    assert "'train_1', stream 'flow'" in examples


def test_a_truth_that_no_candidate_meets_is_named(config, corpus):
    add(corpus, 'far', ground_truth=[random_tube(np.random.default_rng(0), 9, 500)])
    found, examples = findings(config, splits=['train'])
    assert found == {('warning', 'train', 'sentence whose true tube no candidate meets')}
    assert "video 'far', sentence 0" in examples


def test_videos_without_truth_or_tubes_are_told_by_split(config, corpus):
    add(corpus, 'without', ground_truth=[])
    assert ('error', 'train', 'video without ground truth') in findings(config)[0]
    test = dict(train_dataloader=dict(dataset=dict(test_mode=True)))
    assert findings(config, test, splits=['train'])[0] == {
        ('error', 'train', 'video without ground truth')
    }  # of some, which no metric takes
    write_tube_file(corpus / 'test.h5', [TubeVideo('a', ['a red box'])])
    assert findings(config, splits=['test'])[0] == {
        ('warning', 'test', 'video without candidate tubes: counts as not found'),
        ('error', 'test', 'no video with a candidate tube'),
        ('info', 'test', 'video without ground truth'),
    }


def test_streams_and_sizes_are_compared_with_the_config(config, corpus):
    streams = {
        f'{split}_dataloader.dataset.streams': ['appearance', 'csn']
        for split in ('train', 'val', 'test')
    }
    found, examples = findings(config, streams, splits=['train'])
    assert ('error', 'train', 'unusable video') in found
    assert "has no stream 'csn', but ['appearance', 'flow']" in examples
    found, examples = findings(config, {'model.backbone.in_channels': 8}, splits=['train'])
    assert found == {('error', 'train', 'wrong feature size')}
    assert 'D = 4 + 3 = 7' in examples
    add(
        corpus,
        'wide',
        features=dict(
            appearance=[np.eye(4, dtype=np.float32)] * 2, flow=[np.eye(9, dtype=np.float32)] * 2
        ),
    )
    found, examples = findings(config, splits=['train'])
    assert found == {('error', 'train', 'feature size differs between videos')}
    assert "'wide': streams ['appearance', 'flow'] of sizes [4, 9], most others [4, 3]" in examples


def test_sentences_and_shared_videos_are_checked_as_those_of_moments(config, corpus):
    add(corpus, 'test_1', sentences=['xyzzy'])
    found, examples = findings(config)
    assert ('error', 'train', 'sentence without a known word') in found
    assert ('error', 'train, test', 'videos in both splits') in found
    assert "video 'test_1', sentence 0 ('xyzzy')" in examples


def test_damaged_groups_are_named(config, corpus):
    with h5py.File(corpus / 'train.h5', 'a') as file:
        del file['train_2/tubes'], file['train_3/sentences']
        file['loose'] = np.zeros(3)
    found, examples = findings(config, splits=['train'])
    assert found == {('error', 'train', 'unusable video')}
    for name in ('train_2', 'train_3', 'loose'):
        assert f"video '{name}' is not there, or lacks sentences or tubes" in examples
