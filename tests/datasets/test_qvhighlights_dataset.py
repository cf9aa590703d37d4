"""QVHighlights' lines as samples, features of rows of 2 s, and what cannot be used."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_qvhighlights import (
    FILES,
    SIZES,
    write_features,
    write_lines,
    write_qvhighlights,
    write_qvhighlights_config,
)
from mmaction.registry import DATASETS, TRANSFORMS

from mmn_plugin.config import load_config
from mmn_plugin.datasets import FeatureError, check_config
from mmn_plugin.datasets.transforms import fit_rows, row_problem
from mmn_plugin.errors import InputError
from mmn_plugin.structures.annotations import AnnotationError


@pytest.fixture
def corpus(tmp_path):
    return write_qvhighlights(tmp_path / 'corpus')


@pytest.fixture
def config(corpus, tmp_path):
    return load_config(write_qvhighlights_config(tmp_path / 'tiny.py', corpus))


def lines_of(corpus, split):
    return list(map(json.loads, (corpus / f'{FILES[split]}.jsonl').read_text().splitlines()))


def rewrite(corpus, split, change):
    lines = lines_of(corpus, split)
    change(lines)
    write_lines(corpus / f'{FILES[split]}.jsonl', lines)


def test_a_sample_is_a_video_with_all_its_queries_and_all_their_windows(corpus, config):
    lines = lines_of(corpus, 'val')
    dataset = DATASETS.build(config.val_dataloader.dataset)
    assert len(dataset) == 5
    samples = [dataset[i]['data_samples'] for i in range(5)]
    assert samples[0].sentence_index == [0, 1]
    assert samples[0].lines == [(0, lines[0]), (5, lines[5])]
    for sample in samples:
        asked = [line for line in lines if line['vid'] == sample.video_id]
        assert sample.sentences == [line['query'] for line in asked]
        assert [own.tolist() for own in sample.windows] == [
            line['relevant_windows'] for line in asked
        ]
        assert sample.duration == asked[0]['duration']
    assert 'lines' not in DATASETS.build(config.train_dataloader.dataset)[0]['data_samples']


def test_sources_are_normalized_by_themselves_and_a_row_stays_at_its_time(corpus, config):
    dataset = DATASETS.build(config.train_dataloader.dataset)
    for place, rows in ((0, 15), (1, 14)):  # one row too many, and one too few, in one source
        info = dataset.get_data_info(place)
        streams = [
            np.load(corpus / name / f'{info["video_id"]}.npz')['features'][:rows] for name in SIZES
        ]
        expected = np.concatenate(
            [stream / np.linalg.norm(stream, axis=1, keepdims=True) for stream in streams], axis=1
        )
        expected = expected[np.arange(15).clip(max=rows - 1)]
        assert np.allclose(dataset[place]['inputs'].numpy(), expected, atol=1e-6)
    short = dataset[2]['inputs']  # 12 rows of 24 s over 15 segments
    assert len(torch.unique(short, dim=0)) == 12


def test_an_array_of_all_sources_is_pooled_as_the_sources_are(config):
    pool = TRANSFORMS.build(config.test_dataloader.dataset.pipeline[1])
    streams = [np.random.default_rng(0).random((11, size)) for size in SIZES.values()]
    apart = pool(dict(features=streams))['features']
    assert np.array_equal(pool(dict(features=np.concatenate(streams, 1)))['features'], apart)
    for wrong, sizes in ((streams[::-1], r'\[3, 4\]'), (np.ones((11, 6)), r'\[6\]')):
        message = rf"'v' has features of sizes {sizes}, but source_sizes .* are \[4, 3\]"
        with pytest.raises(FeatureError, match=message):
            pool(dict(features=wrong, video_id='v'))


def test_rows_are_cut_to_the_shortest_source_and_the_last_one_stands_for_absent_ones():
    a, b = np.arange(6)[:, None], 10 + np.arange(5)[:, None]
    found = fit_rows([a, b], duration=9.0, row_seconds=2.0)
    assert [rows[:, 0].tolist() for rows in found] == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]
    found = fit_rows([a, b], duration=14.0, row_seconds=2.0)
    assert found[0][:, 0].tolist() == [0, 1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize('off', [-3, -2, -1, 0, 1, 2, 3])
def test_up_to_two_rows_more_or_fewer_are_mended(off):
    problem = row_problem(75 + off, 150, 2.0)
    assert (problem is None) == (abs(off) <= 2)
    assert problem is None or f'{75 + off} rows of 2 s cover {150 + 2 * off} s' in problem


def test_a_video_with_features_of_another_length_is_an_error_of_training_and_of_the_check(
    corpus, config
):
    vid = lines_of(corpus, 'train')[3]['vid']
    for rows, count in (((15, 12), 1), ((30, 30), 2)):
        write_features(corpus, vid, rows, np.random.default_rng(0))
        dataset = DATASETS.build(config.train_dataloader.dataset)
        dataset[2]
        with pytest.raises(FeatureError, match=rf"_features: video '{vid}': {rows[1]} rows of 2 s"):
            dataset[3]
        report = check_config(config)
        assert not report.passed
        (finding,) = [one for one in report.findings if one.level == 'error']
        assert finding.what == 'more or fewer rows than the video lasts'
        assert finding.count == count
        assert vid in finding.examples[0]


def test_features_at_no_rate_are_pooled_as_other_datasets_do(corpus, config):
    config.train_dataloader.dataset.row_seconds = None
    vid = lines_of(corpus, 'train')[0]['vid']
    write_features(corpus, vid, (40, 12), np.random.default_rng(0))
    assert DATASETS.build(config.train_dataloader.dataset)[0]['inputs'].shape == (15, 7)
    config.train_dataloader.dataset.row_seconds = 0
    with pytest.raises(InputError, match='row_seconds=0; it must be above 0'):
        DATASETS.build(config.train_dataloader.dataset)


def forget_truth(lines):
    for line in lines:
        for key in ('relevant_windows', 'relevant_clip_ids', 'saliency_scores'):
            del line[key]


def test_a_file_without_truth_is_for_tests(corpus, config):
    rewrite(corpus, 'test', forget_truth)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    sample = dataset[0]['data_samples']
    assert 'gt_instances' not in sample
    assert sample.lines[0][1].keys() == {'qid', 'query', 'vid', 'duration'}
    assert check_config(config).passed
    settings = dict(config.train_dataloader.dataset, ann_file='highlight_test_with_gt.jsonl')
    with pytest.raises(AnnotationError, match=r'with_gt.jsonl has no "relevant_windows" to train'):
        DATASETS.build(settings)
    assert len(DATASETS.build(settings | dict(weak=True))) == 5


def test_weak_supervision_holds_no_truth(config):
    pipeline = config.val_dataloader.dataset.pipeline
    settings = dict(config.train_dataloader.dataset, weak=True, pipeline=pipeline)
    dataset = DATASETS.build(settings)
    assert 'windows' not in dataset.get_data_info(0)
    sample = dataset[0]['data_samples']
    assert 'gt_instances' not in sample
    assert sample.lines[0][1].keys() == {'qid', 'query', 'vid', 'duration'}


def test_an_empty_list_of_windows_is_a_query_that_does_not_occur(corpus, config):
    rewrite(corpus, 'train', lambda lines: lines[0].update(relevant_windows=[]))
    sample = DATASETS.build(config.train_dataloader.dataset)[0]['data_samples']
    assert sample.windows[0].shape == (0, 2)


def change(place, **changes):
    return lambda lines: lines[place].update(changes)


BAD = {
    r'line 2 is not JSON': lambda lines: lines.insert(1, '{"qid": 8,'),
    r'line 2 .* qid 100, which came before': change(1, qid=100),
    r'line 3 \(qid 102\) has query=None': change(2, query=None),
    r'line 3 \(qid 102\) has vid=7': change(2, vid=7),
    r'line 3 \(qid 102\) needs "vid", and "duration"': change(2, duration='30'),
    r"'train0_0.0_30.0' lasts 30 s by qid 100, and 28 s by qid 108": change(
        8, duration=28, relevant_clip_ids=[], saliency_scores=[]
    ),
    r'line 2 .* as many "relevant_clip_ids"': change(1, relevant_clip_ids=[0, 1, 2]),
    r'line 2 .*"relevant_clip_ids" has 15 .* 15 clips of 2 s': change(
        1, relevant_clip_ids=[15], saliency_scores=[[1, 2, 3]]
    ),
    r'line 2 .*has \[1, 2\] in "saliency_scores"': change(
        1, relevant_clip_ids=[1], saliency_scores=[[1, 2]]
    ),
    r'line 2 .*is no list of \[start, end\]': change(1, relevant_windows='0-4'),
    r'line 2 .*true window \[\[4, 4\]\], which is empty': change(1, relevant_windows=[[4, 4]]),
    r'line 2 .*\[8, 4\], which ends before it starts': change(1, relevant_windows=[[8, 4]]),
    r"'train1_1.0_31.0', .*its moment, 30 to 32 s, lies outside the video of 30 s": change(
        1, relevant_windows=[[0, 4], [30, 32]]
    ),
    r'1 of 9 lack "relevant_windows".*\[101\]': lambda lines: lines[1].pop('relevant_windows'),
}


@pytest.mark.parametrize('message', BAD)
def test_a_line_that_cannot_be_used_is_named_in_training_and_by_the_check(corpus, config, message):
    rewrite(corpus, 'train', BAD[message])
    with pytest.raises(AnnotationError, match=r'highlight_train_release.jsonl.*' + message):
        DATASETS.build(config.train_dataloader.dataset)
    report = check_config(config, ['train'])
    assert not report.passed
    assert [one.level for one in report.findings].count('error') == 1


def test_a_sound_corpus_passes_the_check(config):
    report = check_config(config)
    assert report.passed
    assert not report.findings
    assert report.counts['train']['videos'] == report.counts['train']['with_features'] == 8
    assert report.counts['train']['sentences'] == 9
    assert report.counts['train']['feature_size'] == 7


def test_the_released_files_are_read_whole(shared):
    folder = shared / 'data' / 'annotations' / 'qvhighlights'
    expected = dict(train=(7100, 7218), val=(1519, 1550), test=(1529, 1542))
    for split, counts in expected.items():
        path = folder / f'{FILES[split]}.jsonl'
        dataset = DATASETS.build(dict(type='QVHighlightsDataset', ann_file=str(path)))
        videos = [dataset.get_data_info(i) for i in range(len(dataset))]
        windows = [own for video in videos for own in video['windows']]
        assert sorted(place for v in videos for place, _ in v['lines']) == [*range(counts[1])]
        assert (len(videos), len(windows)) == counts
        truth = [json.loads(line)['relevant_windows'] for line in path.read_text().splitlines()]
        assert sorted(map(len, windows)) == sorted(map(len, truth))
