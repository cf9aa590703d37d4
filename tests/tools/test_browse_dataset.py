"""tools/analysis_tools/browse_dataset.py on a tiny corpus."""

import json

import h5py
import numpy as np
import pytest
from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_weak import write_weak_config


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browse')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'))


def browse(*arguments):
    return run_tool('analysis_tools/browse_dataset.py', *arguments)


def test_samples_are_listed_and_drawn(config, tmp_path):
    code, output = browse(config, '--split', 'test', '--number', '2', '--out', tmp_path)
    assert code == 0, output
    videos = json.loads((config.parent / 'corpus/test.json').read_text())
    assert 'test_0' in output
    assert 'test_2' in output
    assert '16x6' in output
    expected = [
        f'{name}_{i}.png'
        for name in ('test_0', 'test_2')
        for i in range(len(videos[name]['sentences']))
    ]
    assert sorted(path.name for path in tmp_path.glob('[!.]*')) == expected
    for sentence in videos['test_0']['sentences']:
        assert sentence in output


def test_a_video_with_many_sentences_is_drawn_in_part(config, tmp_path):
    code, output = browse(config, '--number', '99', '--max-sentences', '1', '--out', tmp_path)
    assert code == 0, output
    assert len(list(tmp_path.glob('*.png'))) == 8  # all videos of train, one sentence each


def test_a_file_of_someone_else_is_not_replaced(config, tmp_path):
    (tmp_path / 'test_0_0.png').write_text('mine')
    code, output = browse(config, '--split', 'test', '--number', '1', '--out', tmp_path)
    assert code == 1
    assert f'{tmp_path / "test_0_0.png"} is there and was not written by this program' in output
    assert (tmp_path / 'test_0_0.png').read_text() == 'mine'


def test_ids_that_differ_in_a_colon_or_a_script_have_pictures_of_their_own(config, tmp_path):
    videos = json.loads((config.parent / 'corpus/test.json').read_text())
    first = videos['test_0']
    ids = ['a:test_0', 'a_test_0', 'видео_0', '動画_0']
    (tmp_path / 'test.json').write_text(json.dumps(dict.fromkeys(ids, first)))
    with h5py.File(config.parent / 'corpus/features.h5') as file:
        features = file['test_0'][()]
    (tmp_path / 'features').mkdir()
    for name in ids:
        np.save(tmp_path / 'features' / name, features)
    code, output = run_tool(
        'analysis_tools/browse_dataset.py {} --split test --number 9 --max-sentences 1 --out {}',
        config,
        tmp_path / 'out',
        '--cfg-options',
        f'test_dataloader.dataset.ann_file={tmp_path}/test.json',
        f'test_dataloader.dataset.data_prefix.features={tmp_path}/features',
    )
    assert code == 0, output
    assert sorted(path.name for path in (tmp_path / 'out').glob('*.png')) == [
        'a_test_0-2_0.png',
        'a_test_0_0.png',
        'видео_0_0.png',
        '動画_0_0.png',
    ]


@pytest.mark.parametrize(
    ('split', 'word', 'drawn'), [('train', 'unknown', False), ('test', ' - ', True)]
)
def test_weak_samples_are_listed_without_a_truth(config, tmp_path, split, word, drawn):
    weak = write_weak_config(tmp_path / 'weak.py', config.parent / 'corpus')
    code, output = browse(weak, '--split', split, '--number', '1', '--out', tmp_path / 'out')
    assert code == 0, output
    assert word in output
    assert (tmp_path / 'out').exists() == drawn


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--cfg-options', 'val_dataloader=None', '--split', 'val'], 'no val_dataloader'),
        (['--number', '0'], '--number 0'),
        (['--cfg-options', 'train_dataloader.dataset.ann_file=none.json'], 'none.json'),
    ],
)
def test_mistakes_end_in_one_message(config, tmp_path, arguments, message):
    code, output = browse(config, '--out', tmp_path, *arguments)
    assert code == 1
    assert message in output
    assert 'Traceback' not in output
