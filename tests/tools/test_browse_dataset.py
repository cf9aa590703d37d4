"""tools/analysis_tools/browse_dataset.py on a tiny corpus."""
import json

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
    expected = [f'{name}_{i}.png' for name in ('test_0', 'test_2')
                for i in range(len(videos[name]['sentences']))]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    for sentence in videos['test_0']['sentences']:
        assert sentence in output


def test_a_video_with_many_sentences_is_drawn_in_part(config, tmp_path):
    code, output = browse(config, '--number', '99', '--max-sentences', '1', '--out', tmp_path)
    assert code == 0, output
    assert len(list(tmp_path.iterdir())) == 8  # all videos of train, one sentence each


@pytest.mark.parametrize(('split', 'word', 'drawn'), [
    ('train', 'unknown', False), ('test', ' - ', True)])
def test_weak_samples_are_listed_without_a_truth(config, tmp_path, split, word, drawn):
    weak = write_weak_config(tmp_path / 'weak.py', config.parent / 'corpus')
    code, output = browse(weak, '--split', split, '--number', '1', '--out', tmp_path / 'out')
    assert code == 0, output
    assert word in output
    assert (tmp_path / 'out').exists() == drawn


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--cfg-options', 'val_dataloader=None', '--split', 'val'], 'no val_dataloader'),
    (['--number', '0'], '--number 0'),
    (['--cfg-options', 'train_dataloader.dataset.ann_file=none.json'], 'none.json')])
def test_mistakes_end_in_one_message(config, tmp_path, arguments, message):
    code, output = browse(config, '--out', tmp_path, *arguments)
    assert code == 1
    assert message in output
    assert 'Traceback' not in output
