import functools
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from mmn_plugin.cli import commands
from mmn_plugin.cli.main import main
from mmn_plugin.datasets import write_random_features

ROOT = Path(__file__).resolve().parents[2]
VOCAB = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'he', 'took', 'out', 'pot', 'washed', '.']


class Corpus:
    """A sound tiny dataset of three splits, to be broken."""

    def __init__(self, folder):
        self.folder = folder
        for split in ('train', 'val', 'test'):
            self.write(split, {f'{split}_{i}': self.video() for i in range(4)})
        with h5py.File(folder / 'features.hdf5', 'w') as file:
            for split in ('train', 'val', 'test'):
                for i in range(4):
                    file[f'{split}_{i}'] = np.random.default_rng(i).random((6, 8))
        (folder / 'vocab.txt').write_text('\n'.join(VOCAB))
        (folder / 'config.py').write_text(self.config())

    @staticmethod
    def video(**changes):
        return {
            **dict(
                duration=20.0,
                timestamps=[[0, 5], [4, 18]],
                sentences=['He took out pot.', 'He washed pot'],
            ),
            **changes,
        }

    def config(self):
        vocab = str(self.folder / 'vocab.txt')
        lines = [
            "model = dict(backbone=dict(type='ClipEncoder', in_channels=8),",
            '    data_preprocessor=dict(',
            f"        tokenizer=dict(type='SentenceTokenizer', vocab={vocab!r})),",
            "    text_encoder=dict(config=dict(model_type='distilbert', vocab_size=11,",
            '                                  max_position_embeddings=12)))',
        ]
        for split in ('train', 'val', 'test'):
            lines.append(
                f"{split}_dataloader = dict(dataset=dict(type='TemporalGroundingDataset', "
                f"ann_file='{split}.json', data_root={str(self.folder)!r}, "
                "data_prefix=dict(features='features.hdf5')))"
            )
        return '\n'.join(lines)

    def write(self, split, content):
        (self.folder / f'{split}.json').write_text(json.dumps(content))

    def change(self, split, video_id, **changes):
        content = json.loads((self.folder / f'{split}.json').read_text())
        content[video_id] = self.video(**changes)
        self.write(split, content)

    def features(self, video_id, array):
        with h5py.File(self.folder / 'features.hdf5', 'a') as file:
            del file[video_id]
            if array is not None:
                file[video_id] = array


@pytest.fixture
def tiny(tmp_path):
    return Corpus(tmp_path)


@pytest.fixture
def check(tiny, capsys, monkeypatch):
    # however long the test's folder is, no name is broken at the end of a line
    wide = functools.partial(Console, width=400)
    monkeypatch.setattr(commands, 'Console', lambda **options: wide())

    def run(*options):
        code = main(['check', str(tiny.folder / 'config.py'), *options])
        return code, ' '.join(capsys.readouterr().out.split())

    return run


def test_a_sound_dataset_passes(check):
    code, text = check()
    assert code == 0
    assert 'PASSED' in text
    assert 'Findings' not in text
    for split in ('train', 'val', 'test'):
        assert f'{split} │ 4 │ 8 │' in text  # videos and sentences


ERRORS = {
    'non-positive duration': dict(duration=0.0),
    'moment outside its video': dict(timestamps=[[0, 5], [25, 30]]),
    'empty sentence': dict(sentences=['He took out pot.', '  ']),
    'malformed entry': dict(sentences=['He took out pot.']),
    'sentence over the language model': dict(sentences=['He took out pot.', 'he ' * 11]),
    'sentence without a known word': dict(sentences=['He took out pot.', 'Zebra!']),
}


@pytest.mark.parametrize('what', ERRORS)
def test_errors_in_annotations_fail_and_are_named(tiny, check, what):
    tiny.change('val', 'val_2', **ERRORS[what])
    code, text = check()
    assert code == 1
    assert 'FAILED' in text
    assert f'error │ val │ {what}' in text
    assert "video 'val_2'" in text


@pytest.mark.parametrize(
    'changes',
    [
        dict(timestamps=[[0, 5], ['a', 2]]),
        dict(timestamps=[[0, 5], None]),
        dict(timestamps=None),
        dict(duration=float('nan')),
        dict(fps=3, num_frames=30),  # both units
    ],
)
def test_any_malformed_entry_fails(tiny, check, changes):
    tiny.change('train', 'train_1', **changes)
    code, text = check('--quick')
    assert code == 1
    assert "video 'train_1'" in text


@pytest.mark.parametrize('weak', ['True', 'False'])
@pytest.mark.parametrize(
    ('sentence', 'what'),
    [('He took \ud83d out', 'sentence with a part of a character'), ('  ', 'empty sentence')],
)
def test_a_sentence_without_text_is_named_once(tiny, check, sentence, what, weak):
    tiny.change('val', 'val_2', sentences=['He took out pot.', sentence])
    code, text = check('--cfg-options', f'val_dataloader.dataset.weak={weak}')
    assert code == 1
    assert f'error │ val │ {what} │ 1' in text
    assert "video 'val_2', sentence 1" in text
    assert 'known word' not in text


def test_ids_that_no_terminal_shows_are_named(tiny, check):
    for split in ('train', 'val'):
        content = json.loads((tiny.folder / f'{split}.json').read_text())
        tiny.write(split, {**content, 'caf\udce9': tiny.video()})
    code, text = check()
    assert code == 1
    assert r'videos in both splits │ 1 │ caf\udce9' in text


WARNINGS = {
    'start >= end: sentence dropped': dict(timestamps=[[0, 5], [7, 7]]),
    'start before the video: clamped': dict(timestamps=[[-2, 5], [4, 18]]),
    'end after the video: clamped': dict(timestamps=[[0, 5], [4, 20.5]]),
    'video without usable sentence': dict(timestamps=[[5, 0], [18, 4]]),
}


@pytest.mark.parametrize('what', WARNINGS)
def test_what_the_dataset_mends_is_a_warning(tiny, check, what):
    tiny.change('train', 'train_3', **WARNINGS[what])
    code, text = check()
    assert code == 0
    assert f'warning │ train │ {what}' in text
    assert 'train_3' in text


FEATURES = {
    'video without features': None,
    'NaN or Inf in features': np.array([[0.0] * 8, [np.nan] * 8]),
    'empty features': np.zeros((0, 8)),
    'features not of rank 2': np.zeros(8),
    'features are not numbers': np.array([[b'x'] * 8]),
    'feature size differs between videos': np.ones((3, 9)),
}


@pytest.mark.parametrize('what', FEATURES)
def test_errors_in_features_fail_and_are_named(tiny, check, what):
    tiny.features('test_1', FEATURES[what])
    code, text = check()
    assert code == 1
    assert f'error │ test │ {what}' in text
    assert "video 'test_1'" in text
    assert 'error │ train' not in text


def unwritten(folder, video_id, rows, **options):
    """Create the features of a video again, and write some of the rows."""
    with h5py.File(folder / 'features.hdf5', 'a') as file:
        del file[video_id]
        dataset = file.create_dataset(video_id, (40, 8), np.float32, **options)
        if rows:
            dataset[:rows] = np.random.default_rng(0).random((rows, 8))


@pytest.mark.parametrize(
    'options', [{}, dict(chunks=(10, 8)), dict(chunks=(10, 8), compression='gzip', fillvalue=1.0)]
)
@pytest.mark.parametrize('quick', [[], ['--quick']])
def test_features_that_were_never_written_fail_and_are_named(tiny, check, options, quick):
    unwritten(tiny.folder, 'test_1', 0, **options)
    code, text = check(*quick)
    assert code == 1
    assert 'error │ test │ features never written │ 1' in text
    assert "video 'test_1'" in text


@pytest.mark.parametrize('quick', [[], ['--quick']])
def test_features_that_were_partly_written_fail_and_are_named(tiny, check, quick):
    unwritten(tiny.folder, 'test_1', 25, chunks=(10, 8), compression='gzip')
    code, text = check(*quick)
    assert code == 1
    assert "video 'test_1' was written in 3 of 4 chunks" in text


def test_features_written_in_all_chunks_pass(tiny, check):
    unwritten(tiny.folder, 'test_1', 40, chunks=(9, 3), compression='gzip')
    code, text = check()
    assert code == 0
    assert 'Findings' not in text


RANDOM = np.random.default_rng(0).random((20, 8))
UNCHANGING = {  # what is said, at which level, of which rows
    'features are all zero': ('error', np.zeros((20, 8))),
    'features never change: all rows are the same': ('warning', np.repeat(RANDOM[:1], 20, 0)),
    'most rows of the features are the same': ('warning', RANDOM[[0] * 15 + [1, 2, 3, 4, 5]]),
    'rows of zeros in features': ('warning', RANDOM * (np.arange(20) < 17)[:, None]),
}


@pytest.mark.parametrize('what', UNCHANGING)
def test_features_that_tell_nothing_are_named(tiny, check, what):
    level, array = UNCHANGING[what]
    tiny.features('test_1', array)
    code, text = check()
    assert code == (level == 'error')
    assert f'{level} │ test │ {what} │ 1' in text
    assert "video 'test_1'" in text


def test_features_of_most_videos_that_never_change_fail(tiny, check):
    for i in range(3):
        tiny.features(f'test_{i}', np.repeat(RANDOM[i : i + 1], 9, 0))
    code, text = check()
    assert code == 1
    assert 'error │ test │ features never change' in text


def test_a_folder_of_npz_files_is_checked(tiny, check):
    folder = tiny.folder / 'npz'
    folder.mkdir()
    with h5py.File(tiny.folder / 'features.hdf5') as file:
        for video_id, features in file.items():
            np.savez_compressed(folder / f'{video_id}.npz', features=features[()])
    options = [
        f'{split}_dataloader.dataset.data_prefix.features=npz' for split in ('train', 'val', 'test')
    ]
    assert check('--cfg-options', *options)[0] == 0
    np.savez(folder / 'val_2.npz', slow=RANDOM, fast=RANDOM)
    code, text = check('--cfg-options', *options)
    assert code == 1
    assert "val_2.npz holds the arrays ['fast', 'slow']" in text


def test_a_wrong_feature_size_names_the_setting(check):
    code, text = check('--cfg-options', 'model.backbone.in_channels=4096')
    assert code == 1
    assert 'wrong feature size' in text
    assert 'in_channels=4096; set it to 8' in text


def test_quick_looks_at_shapes_alone(tiny, check):
    tiny.features('test_1', FEATURES['NaN or Inf in features'])
    assert check('--quick')[0] == 0
    tiny.features('test_1', FEATURES['empty features'])
    assert check('--quick')[0] == 1


def test_missing_and_corrupt_files_fail(tiny, check):
    (tiny.folder / 'val.json').unlink()
    (tiny.folder / 'features.hdf5').write_bytes(b'nothing')
    code, text = check()
    assert code == 1
    assert 'error │ val │ unusable annotation file' in text
    assert 'error │ train │ unusable feature file' in text


def test_a_training_video_in_an_evaluation_split_fails(tiny, check):
    tiny.change('train', 'val_2')
    code, text = check()
    assert code == 1
    assert 'error │ train, val │ videos in both splits │ 1 │ val_2' in text


@pytest.mark.parametrize('other', ['Val_2', 'val_2 ', 'val_2.mp4', ' VAL_2.AVI', 'val _2'])
def test_ids_that_may_be_of_one_video_are_warned_of(tiny, check, other):
    tiny.change('train', other)
    with h5py.File(tiny.folder / 'features.hdf5', 'a') as file:
        file[other] = np.random.default_rng(9).random((6, 8))
    code, text = check()
    assert code == 0
    shown = ' and '.join(map(repr, sorted([other, 'val_2'])))
    assert f'warning │ train, val │ ids of one video? │ 1 │ {shown}' in text
    tiny.change('val', other)
    code, text = check('--split', 'val')
    assert code == 0
    assert f'warning │ val │ ids of one video? │ 1 │ {shown}' in text


def test_ids_with_other_endings_are_of_other_videos(tiny, check):
    for split, video_id in (('train', 'clip.1'), ('val', 'clip.2'), ('test', 'clip')):
        tiny.change(split, video_id)
        with h5py.File(tiny.folder / 'features.hdf5', 'a') as file:
            file[video_id] = np.random.default_rng(9).random((6, 8))
    code, text = check()
    assert code == 0
    assert 'Findings' not in text


@pytest.mark.parametrize('place', ['id', 'entry'])
def test_a_key_that_stands_twice_fails_and_is_named(tiny, check, place):
    path = tiny.folder / 'train.json'
    text = path.read_text()
    other = ('"train_1": {', f'"train_1": {json.dumps(tiny.video())}, "train_1": {{')
    if place == 'entry':
        other = ('"train_1": {', '"train_1": {"duration": 9.0, ')
    path.write_text(text.replace(*other))
    code, text = check()
    assert code == 1
    assert 'error │ train │ unusable annotation file' in text
    where = "'train_1' twice" if place == 'id' else "'duration' twice, in 'train_1'"
    assert f'train.json has {where}' in text


def test_evaluation_splits_may_share_videos(tiny, check):
    tiny.write('test', {f'val_{i}': tiny.video() for i in range(3)})
    code, text = check()
    assert code == 0
    assert 'info │ val, test │ videos in both splits │ 3' in text


def test_only_the_splits_asked_for_are_checked(tiny, check):
    (tiny.folder / 'train.json').unlink()
    assert check('--split', 'val', 'test')[0] == 0
    assert check()[0] == 1


def test_first_offenders_are_named_and_the_rest_counted(tiny, check):
    for i in range(4):
        tiny.features(f'train_{i}', None)
    _, text = check('--examples', '2')
    assert 'video without features │ 4 │' in text
    assert "'train_1'" in text
    assert "'train_2'" not in text
    assert 'and 2 more' in text


def test_tokenizer_and_language_model_must_belong_together(check):
    code, text = check('--cfg-options', 'model.text_encoder.config.vocab_size=10')
    assert code == 1
    assert 'tokenizer of another language model' in text


def test_a_sentence_that_the_tokenizer_cuts_is_a_warning(tiny, check):
    tiny.change('val', 'val_2', sentences=['He took out pot.', 'he ' * 11])
    code, text = check('--cfg-options', 'model.data_preprocessor.tokenizer.max_length=12')
    assert code == 0
    assert "warning │ val │ sentence over the tokenizer's max_length" in text


def test_an_unknown_config_is_one_message(capsys):
    with pytest.raises(SystemExit):
        main(['check', 'no/such_config.py'])
    assert 'there is no config no/such_config.py' in capsys.readouterr().err


def test_a_split_that_the_config_lacks_is_one_message(tiny, check, capsys):
    with pytest.raises(SystemExit):
        check('--split', 'test', '--cfg-options', 'test_dataloader=None')
    assert "datasets for ['train', 'val']; asked for ['test']" in capsys.readouterr().err


def test_an_unknown_dataset_type_is_named(check):
    code, text = check('--cfg-options', 'val_dataloader.dataset.type=TacosDataset')
    assert code == 1
    assert 'TacosDataset is not in the' in text


def test_wrapped_datasets_are_found(tiny, check):
    wrapped = tiny.config() + (
        "\ntrain_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict("
        "type='ConcatDataset', datasets=[train_dataloader['dataset'], val_dataloader['dataset']])))"
        '\nval_dataloader = None'
    )
    (tiny.folder / 'config.py').write_text(wrapped)
    code, text = check()
    assert code == 0
    assert 'train │ 8 │ 16 │' in text


@pytest.mark.parametrize(
    ('name', 'key', 'splits'),
    [
        ('tacos', None, ('train', 'val', 'test')),
        ('charades_sta', None, ('train', 'test')),
        ('activitynet', 'c3d_features', ('train', 'val', 'test')),
    ],
)
def test_published_annotations_pass(shared, tmp_path, capsys, name, key, splits):
    folder = shared / 'data' / 'annotations' / name
    ids = [vid for split in splits for vid in json.loads((folder / f'{split}.json').read_text())]
    write_random_features(tmp_path / 'f.hdf5', ids, size=8, num_rows=4, feature_key=key)
    vocab = shared / 'data' / 'vocab' / 'bert-base-uncased.txt'
    config = [
        f'model = dict(backbone=dict(in_channels=8), data_preprocessor=dict(tokenizer=dict('
        f"type='SentenceTokenizer', vocab={str(vocab)!r})), text_encoder=dict(config="
        "dict(model_type='distilbert')))"
    ]
    config += [
        f"{split}_dataloader = dict(dataset=dict(type='TemporalGroundingDataset', "
        f"feature_key={key!r}, ann_file={str(folder / split)!r} + '.json', "
        'data_prefix=dict(features='
        f'{str(tmp_path / "f.hdf5")!r})))'
        for split in splits
    ]
    (tmp_path / 'config.py').write_text('\n'.join(config))
    code = main(['check', str(tmp_path / 'config.py'), '--quick'])
    text = ' '.join(capsys.readouterr().out.split())
    assert code == 0
    assert 'error' not in text
    if name == 'activitynet':
        assert 'train │ 10,009 │ 37,417 │' in text
        assert 'info │ val, test │ videos in both splits │ 4885' in text
        assert 'start >= end: sentence dropped │ 4' in text
