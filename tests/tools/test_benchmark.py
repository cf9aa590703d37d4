"""The benchmark tool at toy width."""

import json
from itertools import product

import benchmark
import numpy as np
import pytest
import torch
from benchmark import Subject, interleave, peak_growth
from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_config, write_corpus
from made_up_data import RECORDED, annotation_statistics, typical


@pytest.fixture(scope='module')
def measure(tmp_path_factory):
    folder = tmp_path_factory.mktemp('benchmark')
    config = write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'))

    def run(*options):
        arguments = (config, '--repeats', 2, '--batch-size', 2, '--json', folder / 'figures.json')
        code, output = run_tool('analysis_tools/benchmark.py', *arguments, *options)
        return (json.loads((folder / 'figures.json').read_text()) if code == 0 else None), output

    return run


def test_training_step(measure):
    result, output = measure(
        *('--task', 'train', '--conv-mode', 'dense,sparse', '--dtype', 'fp32,bf16'),
        *('--no-memory', '--profile', 7),
    )
    names = ['dense fp32', 'sparse fp32', 'dense bf16', 'sparse bf16']
    assert [row['name'] for row in result['rows']] == names, output
    first = result['rows'][0]
    assert first['ratio'] == 1
    assert len(first['all_seconds']) == 2
    assert first['videos_per_second'] == pytest.approx(2 / first['seconds'])
    # 8 clips, two 3 x 3 layers of 8 channels: 10 x 10 and 8 x 8 cells of 2 * 8 * 8 * 9
    assert first['flops'] > 3 * 2 * (100 + 64) * 2 * 8 * 8 * 9
    peaks = {(peak['group'], peak['dtype']): peak for peak in result['machine']}
    assert peaks.keys() == set(product(('product', 'convolution'), ('fp32', 'bf16')))
    assert peaks['product', 'fp32']['flops'] == 2 * 2048**3
    assert peaks['convolution', 'fp32']['flops'] == 3 * 2 * 2 * 64 * 8 * 8 * 9
    assert first['of_convolution_peak'] == pytest.approx(
        first['flops_per_second'] / peaks['convolution', 'fp32']['flops_per_second']
    )
    for text in ('training step', 'videos/s', 'of conv. peak', 'Self CPU time total', 'aten::'):
        assert text in output


def test_prediction_of_one_video_and_of_a_batch(measure):
    result, output = measure('--task', 'test')
    assert [(row['group'], row['name'], row['videos']) for row in result['rows']] == [
        ('prediction, 1 video', 'dense fp32', 1),
        ('prediction, 2 videos', 'dense fp32', 2),
    ]
    # of a toy: less than the kernel's count of resident pages, which may be late, tells from none
    assert result['rows'][1]['peak_mb'] == pytest.approx(0, abs=5)
    assert 'peak memory' in output


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--dtype', 'fp32,fp8'], 'give one or more of fp32,tf32,bf16'),
        (['--dtype', 'tf32'], 'tf32 is for CUDA'),
        (
            ['--cfg-options', 'train_dataloader.dataset.ann_file=nowhere.json'],
            'nowhere.json does not exist',
        ),
        (['--device', 'cuda:99'], "'cuda:99' cannot be used"),
    ],
)
def test_what_cannot_be_measured_is_said(measure, options, message):
    result, output = measure(*options)
    assert result is None
    assert message in ' '.join(output.split())


def test_subjects_run_in_turns_and_are_compared_within_a_round():
    order = []
    subjects = [Subject(name, lambda name=name: order.append(name)) for name in 'ABC']
    interleave(subjects, repeats=2)
    assert order == list('ABCABCABC')
    assert [len(subject.seconds) for subject in subjects] == [2, 2, 2]
    slow = Subject('slow', None, seconds=[2.0, 20.0, 4.0])  # the machine was busy in the second
    fast = Subject('fast', None, seconds=[1.0, 10.0, 2.0])
    assert (slow.row(slow)['ratio'], fast.row(slow)['ratio']) == (1, 2)
    quartiles = Subject('even', None, seconds=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert quartiles.row(quartiles)['spread'] == pytest.approx(1 / 3)


def test_a_run_has_the_precision_of_its_row():
    seen = []
    for dtype in ('tf32', 'fp32', 'bf16'):
        Subject('', lambda: seen.append(torch.backends.cudnn.allow_tf32), dtype=dtype)()
    assert seen == [True, False, False]


@pytest.mark.skipif(not benchmark.CLEAR_PEAK.exists(), reason='needs Linux to measure a peak')
def test_the_peak_is_what_a_step_takes_beyond_what_was_there():
    kept = torch.ones(2**18 * 40)  # 40 MB that are there before
    growth = peak_growth(lambda: torch.ones(2**18 * 100).sum() + kept[0])
    assert growth == pytest.approx(100, abs=15)


def test_memory_is_that_of_the_device_that_is_measured(monkeypatch):
    asked, allocated = [], iter([3 * 2**20, 10 * 2**20])
    for name in ('synchronize', 'reset_peak_memory_stats'):
        monkeypatch.setattr(torch.cuda, name, asked.append)
    for name in ('memory_allocated', 'max_memory_allocated'):
        monkeypatch.setattr(
            torch.cuda, name, lambda device: asked.append(device) or next(allocated)
        )
    assert peak_growth(lambda: None, 'cuda:1') == 7  # MB above the 3 that were there
    assert set(asked) == {'cuda:1'}


def recorded_of(name, split, ann_file='absent.json', **settings):
    settings |= dict(data_root=f'data/{name}/', ann_file=str(ann_file))
    return annotation_statistics(settings, split)


def test_a_typical_batch_has_the_sentences_of_all_videos():
    for name, splits in json.loads(RECORDED.read_text()).items():
        for split in splits:
            sentences, _, _ = recorded_of(name, split)
            assert typical(sentences, 25).mean() == pytest.approx(sentences.mean(), rel=0.05)


def test_what_is_recorded_is_what_the_annotation_files_hold(shared):
    for name, file, settings in (
        ('tacos', 'test.json', {}),
        ('charades_sta', 'test.json', {}),
        ('qvhighlights', 'highlight_test_with_gt.jsonl', dict(type='QVHighlightsDataset')),
    ):
        path = shared / 'data' / 'annotations' / name / file
        sentences, tokens, _ = recorded_of(name, 'test')
        counted, words, _ = recorded_of(name, 'test', path, **settings)
        assert sentences.tolist() == counted.tolist()
        assert np.median(tokens) == pytest.approx(np.median(words), abs=1)


def test_an_unknown_dataset_without_annotations_is_refused():
    with pytest.raises(FileNotFoundError, match='nothing is recorded of a dataset'):
        recorded_of('mine', 'train')
