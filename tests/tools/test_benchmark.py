"""The benchmark tool at toy width."""

import json

import pytest
from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_config, write_corpus

TOOL = 'analysis_tools/benchmark.py'
FAST = ['--repeats', '2', '--batch-size', '2']


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('benchmark')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'))


@pytest.fixture
def measured(config, tmp_path):
    def run(task, *options):
        path = tmp_path / 'figures.json'
        code, output = run_tool(TOOL, config, '--task', task, *FAST, '--json', path, *options)
        assert code == 0, output
        return json.loads(path.read_text()), output

    return run


def test_training_step(measured):
    result, output = measured('train', '--dtype', 'fp32,bf16')
    first, second = result['rows']
    assert (first['name'], second['name']) == ('dense fp32', 'dense bf16')
    assert first['ratio'] == 1
    assert len(first['all_seconds']) == 2
    # 8 clips, two 3 x 3 layers of 8 channels: 10 x 10 and 8 x 8 cells of 2 * 8 * 8 * 9
    assert first['encoder_flops'] == 3 * 2 * (100 + 64) * 2 * 8 * 8 * 9
    assert first['videos_per_second'] == pytest.approx(2 / first['seconds'])
    # of a toy: less than the kernel's count of resident pages, which may be late, tells from none
    assert first['peak_mb'] == pytest.approx(0, abs=5)
    phases = result['phases']['dense fp32']
    wanted = {
        'data',
        'text',
        'map',
        'encoder',
        'encoder backward',
        'loss',
        'backward',
        'optimiser',
        'total',
    }
    assert phases.keys() == wanted
    assert sum(phases.values()) - phases['encoder backward'] <= 2 * phases['total']
    encoder = phases['encoder'] + phases['encoder backward']
    assert first['encoder_flops_per_second'] == pytest.approx(first['encoder_flops'] / encoder)
    peaks = {(peak['probe'], peak['dtype']): peak for peak in result['machine']}
    assert peaks.keys() == {
        (kind, dtype) for kind in ('product', 'convolution') for dtype in ('fp32', 'bf16')
    }
    assert peaks['convolution', 'fp32']['flops'] == 3 * 2 * 2 * 64 * 8 * 8 * 9
    for word in ('training step', 'videos/s', 'of conv. peak', 'peak memory', 'encoder', 'other'):
        assert word in output


def test_prediction_of_one_video_and_of_a_batch(measured):
    result, _ = measured('test', '--channels-last', '--no-memory')
    assert [(row['group'], row['name'], row['videos']) for row in result['rows']] == [
        ('prediction, 1 video', 'dense fp32', 1),
        ('prediction, 1 video', 'dense fp32 channels_last', 1),
        ('prediction, 2 videos', 'dense fp32', 2),
        ('prediction, 2 videos', 'dense fp32 channels_last', 2),
    ]
    assert 'peak_mb' not in result['rows'][0]
    assert {'text', 'encoder', 'ranking'} < result['phases']['dense fp32'].keys()


def test_evaluation_of_all_sentences(measured, config):
    result, output = measured('eval')
    whole, alone = result['rows']
    videos = json.loads((config.parent / 'corpus' / 'test.json').read_text())
    assert whole['sentences'] == sum(len(video['sentences']) for video in videos.values())
    assert alone['name'] == 'NMS, all sentences at once'
    assert result['phases']['evaluation'].keys() == {'NMS', 'collecting', 'recall', 'total'}
    assert 'sentences/s' in output


def test_sentence_encoder(measured):
    result, _ = measured('text')
    assert [row['name'] for row in result['rows']] == ['padded fp32', 'by length fp32'] * 2
    assert len({row['tokens'] for row in result['rows']}) == 1
    assert all(row['padded_tokens'] >= row['tokens'] for row in result['rows'])


def test_data_loader(measured):
    result, output = measured('data', '--workers', '0', '--step-ms', '20')
    assert [row['name'] for row in result['rows']] == [
        'feature_cache=None',
        'feature_cache=memory',
        'feature_cache=folder',
    ]
    assert all(0 <= row['waiting'] < 1 for row in result['rows'])
    assert 'beside a training step of 20 ms' in output


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--dtype', 'fp32,fp8'], 'give one or more of fp32,tf32,bf16'),
        (['--dtype', 'tf32'], 'tf32 is for CUDA'),
        (['--annotations', 'nowhere.json'], 'nowhere.json does not exist'),
        (['--device', 'cuda:99'], "'cuda:99' cannot be used"),
    ],
)
def test_what_cannot_be_measured_is_said(config, options, message):
    code, output = run_tool(TOOL, config, *options)
    assert code != 0
    assert message in ' '.join(output.split())
