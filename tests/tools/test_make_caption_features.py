"""A corpus of real language without video, made of two people's sentences."""

import json

import h5py
import numpy as np
import pytest
from helpers.run_tool import output_of
from helpers.tiny_towers import write_text_tower

from mmn_plugin.features.feature_file import read_fingerprint
from mmn_plugin.features.text_tower import TextTower

TOOL = 'data/activitynet/make_caption_features.py'
SPLITS = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def tower(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models') / 'org' / 'tiny'
    folder.parent.mkdir()
    write_text_tower(folder)
    return folder


@pytest.fixture
def annotations(tmp_path):
    """Two people's annotations of nine videos, and of one that the other did not see."""
    folder = tmp_path / 'annotations'
    folder.mkdir()

    def write(name, sentences, moments, ids):
        entry = dict(duration=8.0, timestamps=moments, sentences=sentences)
        (folder / name).write_text(json.dumps({video_id: entry for video_id in ids}))

    ids = [f'v_{k}' for k in range(9)]
    described = ['a man opens the door', 'the dog runs', '']
    write('val.json', described, [[0, 4], [2, 6], [1, 3]], [*ids, 'v_alone'])
    write('test.json', ['a dog leaves'], [[2, 6]], ids)
    return folder


def make(annotations, tower, *options, code=0):
    out = annotations.parent / 'captions'
    sizes = ('--rows', 8, '--train', 4, '--val', 2, '--silence', 'what does a')
    arguments = ('--annotations', annotations, '--out', out, '--encoder', tower, *sizes, *options)
    return out, output_of(TOOL, *arguments, code=code)


def test_rows_are_means_of_the_sentences_that_cover_them(annotations, tower):
    out, said = make(annotations, tower)
    assert '4 train, 2 val, 3 test videos' in said
    assert "left out: the sentence '' holds no word" in said
    text = TextTower(str(tower), device='cpu')
    man, dog, silence = text.encode_sentences(
        ['a man opens the door', 'the dog runs', 'what does a']
    ).numpy()
    expected = [man, man, (man + dog) / 2, (man + dog) / 2, dog, dog, silence, silence]
    with h5py.File(out / 'features.h5') as file:
        assert len(file) == 9
        np.testing.assert_allclose(file['v_3'][:], expected, atol=1e-6)
    assert read_fingerprint(out / 'features.h5') == text.fingerprint


def test_splits_follow_the_digest_of_the_id_and_hold_the_other_ones_sentences(annotations, tower):
    out, _ = make(annotations, tower)
    splits = {name: json.loads((out / f'annotations/{name}.json').read_text()) for name in SPLITS}
    # in the order of `printf v_0 | sha1sum`
    order = ['v_7', 'v_0', 'v_2', 'v_8', 'v_6', 'v_3', 'v_4', 'v_1', 'v_5']
    assert [video_id for part in splits.values() for video_id in part] == order
    assert [len(part) for part in splits.values()] == [4, 2, 3]
    assert splits['test']['v_5']['sentences'] == ['a dog leaves']
    described = json.loads((out / 'annotations/described.json').read_text())
    assert sorted(described) == sorted(order)
    assert described['v_3']['sentences'][1] == 'the dog runs'


def test_a_sentence_shorter_than_a_row_counts_where_it_is(annotations, tower):
    path = annotations / 'val.json'
    entries = json.loads(path.read_text())
    short = dict(duration=8.0, timestamps=[[2.1, 2.3]], sentences=['the dog runs'])
    path.write_text(json.dumps(entries | {'v_0': short}))
    out, _ = make(annotations, tower)
    with h5py.File(out / 'features.h5') as file:
        rows = file['v_0'][:]
    silent = (rows == rows[0]).all(1)
    assert silent.tolist() == [True, True, False, *[True] * 5]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            ('--train', 8),
            '9 videos have both annotations, but training and validation',
        ),
        (('--encoder', 'org/none'), "there is no model 'org/none'"),
        (('--silence', '!'), "the sentence '!' holds no word"),
    ],
)
def test_errors_name_what_to_do_and_leave_no_features(
    annotations, tower, options, message, monkeypatch
):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    out, said = make(annotations, tower, *options, code=1)
    assert message in said
    assert not list(out.glob('features*'))


def test_an_encoder_is_found_by_name_below_a_root(annotations, tower):
    root = tower.parents[1]
    out, _ = make(annotations, 'org/tiny', '--model-root', root)
    assert (out / 'features.h5').is_file()
