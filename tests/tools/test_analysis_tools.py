"""browse_dataset.py, calibrate_presence.py, plot_logs.py and print_config.py."""

import json

import h5py
import numpy as np
import pytest
from helpers.run_tool import output_of
from helpers.tiny_corpus import FEATURE_SIZE
from helpers.tiny_grounder import write_grounder
from helpers.tiny_weak import write_weak_config
from mmengine.config import Config

from mmn_plugin.apis import GroundingInferencer


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Corpus, config and checkpoint of a small model."""
    return write_grounder(tmp_path_factory.mktemp('analysis'), in_channels=FEATURE_SIZE)


def run(name, *arguments, code=0):
    """Output of a tool."""
    return output_of(f'analysis_tools/{name}.py', *arguments, code=code)


def pictures_in(folder):
    return sorted(path.name for path in folder.glob('*.png'))


def test_samples_are_listed_and_drawn(made, tmp_path):
    output = run('browse_dataset', made.config, '--split=test', '--number=2', '--out', tmp_path)
    videos = json.loads((made.corpus / 'test.json').read_text())
    counts = {name: len(videos[name]['sentences']) for name in ('test_0', 'test_2')}
    for text in (*counts, '16x6', *videos['test_0']['sentences']):
        assert text in output
    expected = [f'{name}_{i}.png' for name in counts for i in range(counts[name])]
    assert pictures_in(tmp_path) == expected
    all_of_train = ('--number', '99', '--max-sentences', '1', '--out', tmp_path / 'train')
    run('browse_dataset', made.config, *all_of_train)
    assert len(pictures_in(tmp_path / 'train')) == 8  # one sentence of each video


def test_ids_that_differ_in_a_colon_or_a_script_have_pictures_of_their_own(made, tmp_path):
    first = json.loads((made.corpus / 'test.json').read_text())['test_0']
    ids = ['a:test_0', 'a_test_0', 'видео_0', '動画_0']
    (tmp_path / 'test.json').write_text(json.dumps(dict.fromkeys(ids, first)))
    with h5py.File(made.corpus / 'features.h5') as file:
        features = file['test_0'][()]
    (tmp_path / 'features').mkdir()
    for name in ids:
        np.save(tmp_path / 'features' / name, features)
    dataset = 'test_dataloader.dataset'
    options = (f'{dataset}.ann_file={tmp_path}/test.json',)
    options += (f'{dataset}.data_prefix.features={tmp_path}/features',)
    split = ('--split=test', '--number=9', '--max-sentences=1', '--out', tmp_path / 'out')
    run('browse_dataset', made.config, *split, '--cfg-options', *options)
    expected = ['a_test_0-2_0.png', 'a_test_0_0.png', 'видео_0_0.png', '動画_0_0.png']
    assert pictures_in(tmp_path / 'out') == expected


@pytest.mark.parametrize(
    ('split', 'word', 'drawn'), [('train', 'unknown', False), ('test', ' - ', True)]
)
def test_weak_samples_are_listed_without_a_truth(made, tmp_path, split, word, drawn):
    weak, out = write_weak_config(tmp_path / 'weak.py', made.corpus), tmp_path / 'out'
    assert word in run('browse_dataset', weak, '--split', split, '--number=1', '--out', out)
    assert out.exists() == drawn


def test_a_calibrated_threshold_is_in_what_is_written(made, tmp_path):
    options = ('--config', made.config, '--device=cpu', '--keep=0.8', '--out', tmp_path / 'model')
    output = run('calibrate_presence', made.checkpoint, *options)
    assert 'keeps 80 % of the present' in output
    model = GroundingInferencer.from_pretrained(tmp_path / 'model', device='cpu')
    assert f'threshold {model.presence_threshold:.4f}' in output
    assert model.meta['presence']['keep'] == 0.8


def test_several_logs_are_drawn_into_one_picture(tmp_path):
    for name in ('one', 'two'):
        folder = tmp_path / name / '20260101_000000/vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps(dict(loss=1 / i, epoch=i, iter=i, step=i)) for i in (1, 2, 3)]
        (folder / 'scalars.json').write_text('\n'.join(lines))
    runs, out = (tmp_path / 'one', tmp_path / 'two'), tmp_path / 'new' / 'curves.png'
    run('plot_logs', *runs, '--names', 'A', 'B', '--out', out)
    assert out.read_bytes().startswith(b'\x89PNG')
    assert '1 names for 2 runs' in run('plot_logs', *runs, '--names', 'A', code=2)
    assert "'mIoU'" in run('plot_logs', *runs, '--keys', 'mIoU', '--out', out, code=1)


def test_the_whole_config_is_printed_with_the_options(tmp_path):
    path = tmp_path / 'out' / 'config.py'
    options = ('train_cfg.max_epochs=7', 'model.neck.num_layers=3')
    output = run('print_config', 'mmn_tacos.py', '--cfg-options', *options, '--save-path', path)
    assert "type='MMN'" in output  # inherited
    assert 'max_epochs=7' in output
    saved = Config.fromfile(path)
    assert saved.train_cfg.max_epochs == 7
    assert saved.model.neck.num_layers == 3
    assert saved.model.text_encoder.name_or_path == 'distilbert-base-uncased'


BROWSE = 'browse_dataset CONFIG --out OUT'
CALIBRATE = 'calibrate_presence CHECKPOINT --config CONFIG --device cpu --out OUT'
MISTAKES = [
    (f'{BROWSE} --split val --cfg-options val_dataloader=None', 'no val_dataloader'),
    (f'{BROWSE} --number 0', '--number 0'),
    (f'{BROWSE} --cfg-options train_dataloader.dataset.ann_file=none.json', 'none.json'),
    (
        'browse_dataset CONFIG --split test --number 1 --out TAKEN',
        'was not written by this program',
    ),
    (f'{CALIBRATE} --keep 2', 'keep=2.0'),
    (f'{CALIBRATE} --cfg-options val_dataloader.dataset.ann_file=none.json', 'does not exist'),
    ('plot_logs nowhere --out OUT', 'nowhere: no vis_data'),
    ('print_config mmn_nothing.py', 'mmn_nothing.py'),
    ('print_config mmn_tacos.py --save-path x.txt', 'x.txt'),
]


@pytest.mark.parametrize(('line', 'message'), MISTAKES)
def test_mistakes_end_in_one_message(made, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / 'taken'
    taken.mkdir()
    (taken / 'test_0_0.png').write_text('mine')
    words = dict(CONFIG=made.config, CHECKPOINT=made.checkpoint, OUT='out', TAKEN=taken)
    tool, *arguments = [words.get(word, word) for word in line.split()]
    assert message in run(tool, *arguments, code=1)
    assert (taken / 'test_0_0.png').read_text() == 'mine'
    assert not (tmp_path / 'out').exists()
