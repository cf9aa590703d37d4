"""`mmn check` on a sound dataset, and on one that is broken in every way."""

import functools
import json
import shutil

import h5py
import numpy as np
import pytest
from helpers.random_features import write_random_features
from rich.console import Console

from mmn_plugin.cli.main import main
from mmn_plugin.evaluation import GroundingMetric

VOCAB = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'he', 'took', 'out', 'pot', 'washed', '.']
SPLITS = ('train', 'val', 'test')
RANDOM = np.random.default_rng(0).random((20, 8))


class Corpus:
    """A sound tiny dataset of three splits, to be broken."""

    def __init__(self, folder):
        self.folder = folder
        with h5py.File(folder / 'features.hdf5', 'w') as file:
            for split in SPLITS:
                self.write(split, {f'{split}_{i}': self.video() for i in range(4)})
                for i in range(4):
                    file[f'{split}_{i}'] = np.random.default_rng(i).random((6, 8))
        (folder / 'vocab.txt').write_text('\n'.join(VOCAB))
        model = dict(
            backbone=dict(type='ClipEncoder', in_channels=8),
            data_preprocessor=dict(
                tokenizer=dict(type='SentenceTokenizer', vocab=str(folder / 'vocab.txt'))
            ),
            text_encoder=dict(
                config=dict(model_type='distilbert', vocab_size=11, max_position_embeddings=12)
            ),
        )
        dataset = dict(
            type='TemporalGroundingDataset',
            data_root=str(folder),
            data_prefix=dict(features='features.hdf5'),
        )
        self.config = folder / 'config.py'
        lines = [
            f'{split}_dataloader = {dict(dataset=dict(dataset, ann_file=f"{split}.json"))!r}\n'
            for split in SPLITS
        ]
        self.config.write_text(f'model = {model!r}\n{"".join(lines)}')

    @staticmethod
    def video(**changes):
        sentences = ['He took out pot.', 'He washed pot']
        return dict(duration=20.0, timestamps=[[0, 5], [4, 18]], sentences=sentences) | changes

    def write(self, split, content):
        (self.folder / f'{split}.json').write_text(json.dumps(content))

    def change(self, split, video_id, **changes):
        content = json.loads((self.folder / f'{split}.json').read_text())
        self.write(split, {**content, video_id: self.video(**changes)})

    def features(self, video_id, array=None, rows=0, **options):
        """Replace the features of a video: none, an array, or 40 rows of which some are written."""
        with h5py.File(self.folder / 'features.hdf5', 'a') as file:
            if video_id in file:
                del file[video_id]
            if options:
                dataset = file.create_dataset(video_id, (40, 8), np.float32, **options)
                if rows:
                    dataset[:rows] = np.random.default_rng(0).random((rows, 8))
            elif array is not None:
                file[video_id] = array


@pytest.fixture
def tiny(tmp_path):
    return Corpus(tmp_path)


@pytest.fixture
def check(tiny, capsys, monkeypatch):
    # however long the test's folder is, no name is broken at the end of a line
    wide = functools.partial(Console, width=400)
    monkeypatch.setattr('mmn_plugin.cli.check.Console', lambda **options: wide())

    def run(*options):
        code = main(['check', str(tiny.config), *options])
        return code, ' '.join(capsys.readouterr().out.split())

    return run


def test_a_sound_dataset_passes(check):
    code, text = check()
    assert code == 0
    assert 'PASSED' in text
    assert 'Findings' not in text
    for split in SPLITS:
        assert f'{split} │ 4 │ 8 │' in text  # videos and sentences


def test_sentences_that_are_absent_or_true_more_than_once_are_counted(tiny, check, tmp_path):
    tiny.change('train', 'train_1', timestamps=[[], [[0, 5], [7, 9]]])
    tiny.change('train', 'train_2', timestamps=[[], [4, 18]])
    code, _ = check('--json', str(tmp_path / 'found.json'))
    assert code == 0
    counts = json.loads((tmp_path / 'found.json').read_text())['counts']
    kinds = ('videos', 'sentences', 'absent', 'in_several_windows')
    assert [counts['train'][kind] for kind in kinds] == [4, 8, 2, 1]
    assert {'absent', 'in_several_windows'}.isdisjoint(counts['val'])


def annotated(split, **changes):
    return lambda tiny: tiny.change(split, f'{split}_2', **changes)


def described(*args, **options):
    return lambda tiny: tiny.features('test_1', *args, **options)


def twice(tiny, text):
    path = tiny.folder / 'train.json'
    path.write_text(path.read_text().replace('"train_1": {', text))


def bad_files(tiny):
    (tiny.folder / 'val.json').unlink()
    (tiny.folder / 'features.hdf5').write_bytes(b'nothing')


def two_sentences(second):
    return dict(sentences=['He took out pot.', second])


NEVER = 'error │ test │ features never written │ 1'
KNOWN, HALF = two_sentences('he ' * 11), two_sentences('He took \ud83d out')
CHUNKS = dict(chunks=(10, 8), compression='gzip')
WEAK = ['--cfg-options', 'val_dataloader.dataset.weak=True']
CUT = ['--cfg-options', 'model.data_preprocessor.tokenizer.max_length=12']
ERRORS = [  # how a dataset is broken, options, what is said
    (annotated('val', duration=0.0), [], 'error │ val │ non-positive duration'),
    (annotated('val', timestamps=[[0, 5], [25, 30]]), [], 'moment outside its video'),
    (annotated('val', **two_sentences('  ')), [], 'error │ val │ empty sentence │ 1'),
    (annotated('val', **two_sentences('  ')), WEAK, 'error │ val │ empty sentence │ 1'),
    (annotated('val', **HALF), [], 'error │ val │ sentence with a part of a character │ 1'),
    (annotated('val', **HALF), WEAK, 'error │ val │ sentence with a part of a character │ 1'),
    (annotated('val', **KNOWN), [], 'error │ val │ sentence over the language model'),
    (annotated('val', **two_sentences('Zebra!')), [], 'val │ sentence without a known word'),
    (annotated('val', sentences=['He took out pot.']), [], 'error │ val │ malformed entry'),
    (annotated('val', timestamps=[[0, 5], ['a', 2]]), ['--quick'], 'error │ val │ malformed'),
    (annotated('val', timestamps=[[0, 5], None]), ['--quick'], 'error │ val │ malformed'),
    (annotated('val', timestamps=None), ['--quick'], 'error │ val │ malformed'),
    (annotated('val', duration=float('nan')), ['--quick'], 'error │ val │ '),
    (annotated('val', fps=3, num_frames=30), ['--quick'], 'error │ val │ '),  # both units
    (described(), [], 'error │ test │ video without features'),
    (described([[0.0] * 8, [np.nan] * 8]), [], 'error │ test │ NaN or Inf in features'),
    (described(np.zeros((0, 8))), ['--quick'], 'error │ test │ empty features'),
    (described(np.zeros(8)), [], 'error │ test │ features not of rank 2'),
    (described([[b'x'] * 8]), [], 'error │ test │ features are not numbers'),
    (described(np.ones((3, 9))), [], 'error │ test │ feature size differs between videos'),
    (described(np.zeros((20, 8))), [], 'error │ test │ features are all zero │ 1'),
    (described(fillvalue=0.0), [], NEVER),
    (described(fillvalue=0.0), ['--quick'], NEVER),
    (described(**CHUNKS, fillvalue=1.0), [], NEVER),
    (described(**CHUNKS), ['--quick'], NEVER),
    (described(rows=25, **CHUNKS), [], "video 'test_1' was written in 3 of 4 chunks"),
    (described(rows=25, **CHUNKS), ['--quick'], "video 'test_1' was written in 3 of 4 chunks"),
    (bad_files, [], 'error │ val │ unusable annotation file'),
    (bad_files, [], 'error │ train, val, test │ unusable feature file │ 1'),
    (bad_files, [], 'FAILED: no training could start'),
    (lambda tiny: tiny.change('train', 'val_2'), [], 'videos in both splits │ 1 │ val_2'),
    (
        lambda tiny: [tiny.change(split, 'caf\udce9') for split in SPLITS],
        [],
        r'videos in both splits │ 1 │ caf\udce9',
    ),
    (
        lambda tiny: twice(tiny, '"train_1": {}, "train_1": {'),
        [],
        "train.json has 'train_1' twice",
    ),
    (
        lambda tiny: twice(tiny, '"train_1": {"duration": 9.0, '),
        [],
        "train.json has 'duration' twice, in 'train_1'",
    ),
    (lambda _: 0, ['--cfg-options', 'model.backbone.in_channels=4096'], 'set it to 8'),
    (
        lambda _: 0,
        ['--cfg-options', 'model.text_encoder.config.vocab_size=10'],
        'tokenizer of another language model',
    ),
    (
        lambda _: 0,
        ['--cfg-options', 'val_dataloader.dataset.type=TacosDataset'],
        'TacosDataset is not in the',
    ),
    (
        lambda tiny: [tiny.features(f'test_{i}', RANDOM[[i] * 9]) for i in range(3)],
        [],
        'error │ test │ features never change',  # of most videos
    ),
]
WARNINGS = [
    (annotated('val', timestamps=[[0, 5], [7, 7]]), [], 'val │ start >= end: sentence dropped'),
    (annotated('val', timestamps=[[-2, 5], [4, 18]]), [], 'val │ start before the video: clamped'),
    (annotated('val', timestamps=[[0, 5], [4, 20.5]]), [], 'val │ end after the video: clamped'),
    (annotated('val', timestamps=[[5, 0], [18, 4]]), [], 'val │ video without usable sentence'),
    (annotated('val', **KNOWN), CUT, "val │ sentence over the tokenizer's max_length"),
    (described(RANDOM[[0] * 9]), [], 'test │ features never change: all rows are the same │ 1'),
    (described(RANDOM[[0] * 15 + [1, 2, 3]]), [], 'test │ most rows of the features are the same'),
    (described(RANDOM * (np.arange(20) < 17)[:, None]), [], 'test │ rows of zeros in features │ 1'),
]


@pytest.mark.parametrize(('spoil', 'options', 'said'), ERRORS)
def test_what_makes_training_wrong_fails_and_is_named(tiny, check, spoil, options, said):
    spoil(tiny)
    code, text = check(*options)
    assert code == 1
    assert 'FAILED' in text
    assert said in text
    for name in ('val_2', 'test_1'):
        if said.startswith(f'error │ {name[:-2]} │') and 'file' not in said:
            assert f"video '{name}'" in text
    if 'part of a char' in said or 'empty sentence' in said:
        assert 'known word' not in text  # it is named once


@pytest.mark.parametrize(('spoil', 'options', 'said'), WARNINGS)
def test_what_the_dataset_mends_or_may_be_meant_is_a_warning(tiny, check, spoil, options, said):
    spoil(tiny)
    code, text = check(*options)
    assert code == 0
    assert f'warning │ {said}' in text


def test_what_is_sound_in_another_way_passes(tiny, check):
    tiny.features('test_1', rows=40, chunks=(9, 3), compression='gzip')
    for split, video_id in zip(SPLITS, ('clip.1', 'clip.2', 'clip'), strict=True):
        tiny.change(split, video_id)  # other endings, and so other videos
        tiny.features(video_id, np.random.default_rng(9).random((6, 8)))
    code, text = check()
    assert code == 0
    assert 'Findings' not in text


def test_a_folder_of_npz_files_is_checked(tiny, check):
    (tiny.folder / 'npz').mkdir()
    with h5py.File(tiny.folder / 'features.hdf5') as file:
        for video_id, features in file.items():
            np.savez_compressed(tiny.folder / 'npz' / f'{video_id}.npz', features=features[()])
    options = [f'{split}_dataloader.dataset.data_prefix.features=npz' for split in SPLITS]
    assert check('--cfg-options', *options)[0] == 0
    np.savez(tiny.folder / 'npz' / 'val_2.npz', slow=RANDOM, fast=RANDOM)
    code, text = check('--cfg-options', *options)
    assert code == 1
    assert "val_2.npz holds ['fast', 'slow']" in text


@pytest.mark.parametrize('other', ['Val_2', 'val_2 ', 'val_2.mp4', ' VAL_2.AVI', 'val _2'])
def test_ids_that_may_be_of_one_video_are_warned_of(tiny, check, other):
    shown = ' and '.join(map(repr, sorted([other, 'val_2'])))
    tiny.features(other, np.random.default_rng(9).random((6, 8)))
    for split, where, options in (('train', 'train, val', []), ('val', 'val', ['--split', 'val'])):
        tiny.change(split, other)
        code, text = check(*options)
        assert code == 0
        assert f'warning │ {where} │ ids of one video? │ 1 │ {shown}' in text


def test_splits_and_values_that_are_not_asked_for_are_not_looked_at(tiny, check):
    tiny.features('test_1', [[np.nan] * 8])
    assert check('--quick')[0] == 0
    (tiny.folder / 'train.json').unlink()
    assert check('--split', 'val', 'test', '--quick')[0] == 0
    assert check('--quick')[0] == 1
    tiny.write('test', {f'val_{i}': tiny.video() for i in range(3)})
    code, text = check('--split', 'val', 'test')
    assert code == 0
    assert 'info │ val, test │ videos in both splits │ 3' in text


def test_labels_to_look_at_are_told_drawn_and_no_error(tiny, check, tmp_path):
    same = ['He took out pot.', 'he took out POT', 'He washed pot twice', 'he']
    times = [[0, 5], [[4, 9], [10, 18]], [3, 4], [0, 21]]
    tiny.change('val', 'val_2', sentences=same, timestamps=times)
    folder, file = tmp_path / 'labels', tmp_path / 'found.json'
    code, text = check('--labels', str(folder), '--json', str(file), '--pictures', '1')
    assert code == 0
    assert (
        'info │ val │ sentences of one video that mean the same at different times │ 2 (20.00%)'
        in text
    )
    assert "'he took out POT'), 4.0 to 9.0 s, 10.0 to 18.0 s; but sentence 0 ('He took" in text
    assert 'info │ val │ sentences with one window, of several moments by their text │ 1 ' in text
    assert 'info │ val │ sentences whose windows cover the video │ 1 (10.00%)' in text
    assert 'warning │ val │ end after the video: clamped to its end │ 1' in text
    assert 'windows that end after the video' not in text  # it is one finding
    assert 'compared by their texts alone (the config has no tower' in text
    found = json.loads(file.read_text())
    counts = {kind: told['count'] for kind, told in found['labels']['val'].items()}
    assert counts == dict(same_meaning=2, several_moments=1, whole_video=1, past_end=1)
    (offender,) = found['labels']['val']['past_end']['offenders']
    assert offender == dict(
        video_id='val_2', sentence_index=3, sentence='he', windows=[[0.0, 21.0]]
    )
    assert found['labels']['train']['same_meaning'] == dict(count=0, share=0.0, offenders=[])
    page = (folder / 'labels.html').read_text()
    assert page.count('<img') == 4
    assert '<td>val</td><td>10</td><td>2 (20.00%)</td>' in page
    subsets = json.loads((folder / 'val.json').read_text())
    assert subsets['same_meaning'] == {'val_2': [0, 1]}
    assert subsets['no_finding']['val_1'] == [0, 1]
    assert GroundingMetric(subsets=str(folder / 'val.json')).subsets == subsets
    assert check('--labels', str(folder))[0] == 0  # its own files are replaced
    (folder / 'val.json').write_text('{}')
    with pytest.raises(SystemExit):
        check('--labels', str(folder))


def test_without_timestamps_there_are_no_labels_to_look_at(tiny, check, tmp_path):
    weak = [f'{split}_dataloader.dataset.weak=True' for split in SPLITS]
    folder, file = tmp_path / 'labels', tmp_path / 'found.json'
    code, text = check('--labels', str(folder), '--json', str(file), '--cfg-options', *weak)
    assert code == 0
    assert 'there are no labels to look at' in text
    assert not folder.exists()
    assert json.loads(file.read_text())['labels'] == {}


def test_labels_of_a_corpus_that_cannot_be_written_end_the_check_before_it_begins(
    tiny, check, tmp_path, capsys
):
    folder = tmp_path / 'labels'
    folder.mkdir()
    (folder / 'val_kitchen.json').write_text('mine')
    text = tiny.config.read_text()
    tiny.config.write_text(text.replace("'val.json'", "'val.json', 'corpus': 'kitchen'"))
    with pytest.raises(SystemExit):
        check('--labels', str(folder))
    output, error = capsys.readouterr()
    assert output == ''
    assert 'val_kitchen.json is there and was not written by this program' in error


def test_a_split_of_which_no_sentence_is_left_or_occurs_is_told(tiny, check):
    for video in range(4):
        tiny.change('train', f'train_{video}', timestamps=[[5, 5], [[9, 4]]])
        tiny.change('val', f'val_{video}', timestamps=[[], []])
    code, text = check()
    assert code == 1
    assert 'error │ train │ no usable sentence: training and test end │ 1 │' in text
    assert 'warning │ val │ no sentence has a window: moments are neither learned nor' in text


def test_first_offenders_are_named_and_the_rest_counted(tiny, check):
    for i in range(4):
        tiny.features(f'train_{i}', None)
    _, text = check('--examples', '2')
    assert 'video without features │ 4 │' in text
    assert "'train_1'" in text
    assert "'train_2'" not in text
    assert 'and 2 more' in text


def test_what_cannot_be_checked_is_one_message(tiny, check, capsys):
    with pytest.raises(SystemExit):
        main(['check', 'no/such_config.py'])
    assert 'there is no config no/such_config.py' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        check('--split', 'test', '--cfg-options', 'test_dataloader=None')
    assert "datasets for ['train', 'val']; asked for ['test']" in capsys.readouterr().err


def test_wrapped_datasets_are_found(tiny, check):
    with tiny.config.open('a') as file:
        file.write(
            "train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dict("
            "type='ConcatDataset', datasets=[train_dataloader['dataset'], "
            "val_dataloader['dataset']])))\nval_dataloader = None"
        )
    code, text = check()
    assert code == 0
    assert 'train │ 8 │ 16 │' in text


def test_corpora_of_a_split_are_told_apart(tiny, check):
    other = tiny.folder / 'other'
    shutil.copytree(tiny.folder, other)
    plain = tiny.config.read_text()
    joint = """
parts = [dict(train_dataloader['dataset'], data_root=root, **corpus) for root, corpus in PARTS]
train_dataloader = dict(dataset=dict(type='JointDataset', datasets=parts))
"""
    roots = [str(tiny.folder), str(other)]
    corpora = [dict(corpus='indoor'), dict(corpus='outdoor')]
    tiny.config.write_text(f'{plain}PARTS = {[*zip(roots, corpora, strict=True)]}{joint}')
    content = json.loads((other / 'train.json').read_text())
    content['train_1']['sentences'][0] = ''
    (other / 'train.json').write_text(json.dumps(content))
    code, text = check()
    assert code == 1
    assert 'train indoor │ 4 │ 8 │' in text
    assert 'train outdoor │ 3 │' in text  # of which one is unusable
    assert 'error │ train outdoor │ empty sentence' in text
    assert 'in both splits' not in text
    tiny.config.write_text(f'{plain}PARTS = {[(root, {}) for root in roots]}{joint}')
    _, text = check()
    assert 'one id in two datasets │ 3' in text


@pytest.mark.parametrize(
    ('name', 'key', 'splits'),
    [
        ('tacos', None, SPLITS),
        ('charades_sta', None, ('train', 'test')),
        ('activitynet', 'c3d_features', SPLITS),
    ],
)
def test_published_annotations_pass(shared, tmp_path, capsys, name, key, splits):
    folder = shared / 'data' / 'annotations' / name
    ids = [vid for split in splits for vid in json.loads((folder / f'{split}.json').read_text())]
    write_random_features(tmp_path / 'f.hdf5', ids, size=8, num_rows=4, feature_key=key)
    vocab = str(shared / 'data' / 'vocab' / 'bert-base-uncased.txt')
    model = dict(
        backbone=dict(in_channels=8),
        data_preprocessor=dict(tokenizer=dict(type='SentenceTokenizer', vocab=vocab)),
        text_encoder=dict(config=dict(model_type='distilbert')),
    )
    dataset = dict(
        type='TemporalGroundingDataset',
        feature_key=key,
        data_prefix=dict(features=str(tmp_path / 'f.hdf5')),
    )
    config = [f'model = {model!r}']
    for split in splits:
        own = dict(dataset, ann_file=str(folder / f'{split}.json'))
        config.append(f'{split}_dataloader = {dict(dataset=own)!r}')
    (tmp_path / 'config.py').write_text('\n'.join(config))
    assert main(['check', str(tmp_path / 'config.py'), '--quick']) == 0
    text = ' '.join(capsys.readouterr().out.split())
    assert 'error' not in text
    if name == 'activitynet':
        assert 'train │ 10,009 │ 37,417 │' in text
        assert 'info │ val, test │ videos in both splits │ 4885' in text
        assert 'start >= end: sentence dropped │ 4' in text
