"""Published pickles become HDF5 without running what is in them."""

import json
import os
import pickle

import numpy as np
import pytest
from helpers.made_up_tubes import random_tube
from helpers.run_tool import output_of

from mmn_plugin.datasets import TubeError, TubeFile, read_hcstvg_annotations
from mmn_plugin.datasets.hcstvg import load_pickle


def convert(folder, *arguments, code=0):
    streams = [f'--stream={name}={folder}/{name}.pkl' for name in ('csn', 'i3d')]
    files = ('--annotations', folder / 'ann.json', '--tubes', folder / 'tubes.pkl')
    out = ('--out', folder / 'out.h5')
    return output_of('data/hcstvg/convert.py', *files, *streams, *out, *arguments, code=code)


def dump(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))


@pytest.fixture
def published(tmp_path):
    """Two videos; the second has no tube. The last frames of a tube come first in the pickle."""
    rng = np.random.default_rng(0)
    boxes = [[1, 2, 10, 20], [2, 2, 10, 20], [3, 2, 10, 20]]
    annotations = {
        'a.mkv': dict(st_frame=7, ed_frame=9, bbox=boxes, English='A man sits down.'),
        'b.mkv': dict(st_frame=1, ed_frame=3, bbox=[boxes[0], None, boxes[2]], English='Two go.'),
    }
    (tmp_path / 'ann.json').write_text(json.dumps(annotations))
    tubes = [random_tube(rng, 9), random_tube(rng, 5)]
    dump(tmp_path / 'tubes.pkl', {'a': [tubes[0][::-1], tubes[1].tolist()]}, 2)
    for name, size in (('csn', 4), ('i3d', 3)):
        dump(tmp_path / f'{name}.pkl', {'a': [rng.random((n, size)) for n in (3, 6)]})
    return tmp_path, tubes


class Evil:
    def __reduce__(self):
        return os.mkdir, ('evil',)


def test_files_are_converted_once_and_read_as_hdf5(published):
    folder, tubes = published
    output = convert(folder)
    assert '2 videos, streams csn, i3d' in output
    assert '1 of them have no candidate tube (b.mkv)' in output
    video = TubeFile(folder / 'out.h5').read('a.mkv', ['i3d', 'csn'])
    np.testing.assert_array_equal(video.tubes[0], tubes[0])
    np.testing.assert_array_equal(video.ground_truth[0][0], [7, 1, 2, 11, 22])
    assert [part.shape for part in video.features['i3d']] == [(3, 3), (6, 3)]
    gap = TubeFile(folder / 'out.h5').read('b.mkv').ground_truth[0]
    assert gap[:, 0].tolist() == [1, 3]


def test_a_pickle_that_asks_for_code_is_refused_and_the_class_named(published, monkeypatch):
    folder, _ = published
    monkeypatch.chdir(folder)
    dump(folder / 'tubes.pkl', {'a': [Evil()]})
    output = convert(folder, code=1)
    assert 'posix.mkdir' in output
    assert '--trust-pickle' in output
    assert not (folder / 'evil').exists()
    assert not (folder / 'out.h5').exists()
    output = convert(folder, '--trust-pickle', code=1)
    assert (folder / 'evil').exists()
    assert 'may now run any code' in output


def test_arrays_of_python_2_and_of_any_numpy_pass(tmp_path):
    arrays = [np.arange(6.0).reshape(2, 3), np.float32(3)]
    old = pickle.dumps(dict(a=arrays, b=b''), 2).replace(b'numpy._core', b'numpy.core')
    assert b'__builtin__' in old
    for content in (old, old.replace(b'numpy.core', b'numpy._core')):
        (tmp_path / 'x.pkl').write_bytes(content)
        found = load_pickle(tmp_path / 'x.pkl')
        np.testing.assert_array_equal(found['a'][0], arrays[0])
        assert (found['a'][1], found['b']) == (3, b'')


@pytest.mark.parametrize(
    'name', ['builtins.eval', 'builtins.getattr', 'numpy.load', 'numpy.core.multiarray.fromfile']
)
def test_other_names_are_refused(tmp_path, name):
    module, _, attribute = name.rpartition('.')
    (tmp_path / 'x.pkl').write_bytes(f'c{module}\n{attribute}\n.'.encode())
    with pytest.raises(TubeError, match=f'asks for {name}'):
        load_pickle(tmp_path / 'x.pkl')


def test_damaged_and_unfit_files_end_in_one_message(published):
    folder, _ = published
    whole = (folder / 'tubes.pkl').read_bytes()
    for content, message in (
        (whole[:50], 'damaged'),
        (b'no pickle', 'damaged'),
        (pickle.dumps([1, 2]), 'expected a mapping from videos, found list'),
        (pickle.dumps({'a': np.array([[1, None]], dtype=object)}), 'asks for numpy.dtype(O'),
        (pickle.dumps({'a': [np.zeros((3, 4))]}), 'take both from one run'),
        (pickle.dumps({'a': [np.zeros((3, 4))] * 2}), 'shape (3, 4)'),
    ):
        (folder / 'tubes.pkl').write_bytes(content)
        output = convert(folder, code=1)
        assert message in output
        assert len(output.strip().splitlines()) == 1
    output = convert(folder, '--stream', 'csn=other.pkl', code=2)
    assert '--stream takes NAME=FILE.pkl, every name once' in output


BOX = dict(English='a', st_frame=1, ed_frame=1)


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (dict(BOX, ed_frame=9, bbox=[[1, 2, 3, 4]]), '1 boxes for the frames 1'),
        (dict(BOX, bbox=[[1, 2, 3]]), 'a list of'),
        (dict(BOX, bbox=[[1, 2, -3, 4]]), 'ends before'),
        (dict(English='a', ed_frame=1, bbox=[]), 'st_frame'),
        (dict(BOX, English='', bbox=[[1, 2, 3, 4]]), 'no sentence'),
        (3, 'not an object'),
    ],
)
def test_annotations_that_cannot_be_used_name_the_video(tmp_path, entry, message):
    (tmp_path / 'ann.json').write_text(json.dumps({'clip': entry}))
    with pytest.raises(TubeError, match=message) as error:
        read_hcstvg_annotations(tmp_path / 'ann.json')
    assert "'clip'" in str(error.value)
