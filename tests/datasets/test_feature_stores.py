"""Features in HDF5 files and folders: what is read, what is refused, what changes while in use."""

import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor

import h5py
import numpy as np
import pytest
import torch

from mmn_plugin.datasets import (
    FeatureError,
    HDF5FeatureStore,
    TemporalGroundingDataset,
    open_feature_store,
)


@pytest.fixture
def nested(tmp_path):
    with h5py.File(tmp_path / 'nested.hdf5', 'w') as file:
        file['v_a/c3d_features'] = np.arange(6, dtype=np.float64).reshape(3, 2)
        file['v_a/deep/rgb'] = np.ones((3, 2))
    return tmp_path / 'nested.hdf5'


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'features'
    path.mkdir()
    np.save(path / 's1.avi.npy', np.ones((3, 2), np.float16))
    torch.save(torch.full((4, 2), 2.0, dtype=torch.bfloat16), path / 'v_b.pt')
    np.savez(path / 'v_z.npz', features=np.zeros((6, 2)))
    return path


def test_hdf5_is_read_as_float32_flat_or_under_its_key(corpus, nested):
    store = open_feature_store(corpus / 'features.hdf5')
    assert store.video_ids() == {'kitchen.avi', 'garden'}
    assert store.shape('kitchen.avi') == store.read('kitchen.avi').shape == (7, 5)
    features = open_feature_store(nested, 'c3d_features').read('v_a')
    np.testing.assert_array_equal(features, [[0, 1], [2, 3], [4, 5]])
    assert features.dtype == np.float32
    assert open_feature_store(nested, 'deep/rgb').read('v_a').shape == (3, 2)


@pytest.mark.parametrize('key', [None, 'i3d', 'deep'])
def test_a_wrong_key_is_named_with_what_is_there(nested, key):
    message = rf"'v_a' is a group that holds \['c3d_features', 'deep'\].*feature_key={key!r}"
    with pytest.raises(FeatureError, match=message):
        open_feature_store(nested, key).read('v_a')


def test_a_folder_holds_a_file_per_video(folder):
    store = open_feature_store(folder)
    assert store.video_ids() == {'s1.avi', 'v_b', 'v_z'}
    assert store.shape('s1.avi') == (3, 2)
    features = store.read('s1.avi')
    np.testing.assert_array_equal(features, np.ones((3, 2)))
    assert features.dtype == np.float32


def filled(value, **kind):
    return torch.full((3, 2), float(value), **kind)


TWO = dict(features=filled(4).numpy(), times=filled(5).numpy())
OTHERS = dict(slow=filled(6).numpy(), fast=filled(7).numpy())
FILES = [  # suffix, content, feature_key, and the number that is read or what is said instead
    ('.npy', filled(1).numpy(), None, 1),
    ('.npz', filled(1).numpy(), None, 1),  # an array under the suffix of several
    ('.npy', TWO, None, 4),
    ('.npz', TWO, None, 4),
    ('.npz', TWO, 'times', 5),
    ('.npz', TWO, 'fast', r"v\.npz holds \['features', 'times'\], and no array under 'fast'"),
    ('.npz', dict(anything=TWO['times']), None, 5),
    ('.npz', OTHERS, 'fast', 7),
    ('.npz', OTHERS, None, r"v\.npz holds \['fast', 'slow'\].*feature_key"),
    ('.pth', dict(clip=filled(3), fps=25), 'clip', 3),
    ('.pth', dict(clip=filled(3), fps=25), None, r"v\.pth holds \['clip', 'fps'\].*feature_key"),
    ('.pth', dict(clip=filled(3), fps=25), 'fps', "no array under 'fps'"),
    ('.pt', torch.nn.Parameter(filled(2)), None, 2),
    ('.pt', filled(2).to_sparse(), None, 2),
    ('.pt', filled(2, dtype=torch.float64).T.T, None, 2),
    ('.pt', filled(-2, dtype=torch.complex64).conj().real.neg(), None, 2),
    ('.pt', filled(2, dtype=torch.bfloat16, requires_grad=True), None, 2),
]


@pytest.mark.parametrize(('suffix', 'content', 'key', 'expected'), FILES)
def test_files_hold_an_array_or_several_by_name(tmp_path, suffix, content, key, expected):
    with open(tmp_path / f'v{suffix}', 'wb') as file:
        if suffix in ('.pt', '.pth'):
            torch.save(content, file)
        elif isinstance(content, dict):
            np.savez_compressed(file, **content)
        else:
            np.save(file, content)
    store = open_feature_store(tmp_path, key)
    if isinstance(expected, str):
        with pytest.raises(FeatureError, match=expected):
            store.read('v')
    else:
        np.testing.assert_array_equal(store.read('v'), np.full((3, 2), expected))


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[: len(content) // 2],
        lambda content: b'nothing',
        lambda content: b'',
        lambda content: content.replace(content[60:90], bytes(30)),
    ],
)
def test_a_damaged_file_of_a_folder_names_the_video(folder, damage):
    path = folder / 'v_d.npz'
    np.savez_compressed(path, features=np.random.default_rng(0).random((50, 20)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FeatureError, match="cannot read the features of video 'v_d'"):
        open_feature_store(folder).read('v_d')


class _Payload:
    def __reduce__(self):
        return os.mkdir, ('payload_ran',)


def test_no_code_in_feature_files_is_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(_Payload(), folder / 'bad.pt')
    np.save(folder / 'worse.npy', np.array([_Payload()], dtype=object), allow_pickle=True)
    for video_id in ('bad', 'worse'):
        with pytest.raises(FeatureError, match=video_id):
            open_feature_store(folder).read(video_id)
    assert not (tmp_path / 'payload_ran').exists()


def test_what_is_no_store_and_what_is_not_in_it_are_named(corpus, folder):
    with pytest.raises(FileNotFoundError, match=r'feature\.h5 do not exist.*features\.hdf5'):
        open_feature_store(corpus / 'feature.h5')
    with pytest.raises(FeatureError, match='one per video'):
        open_feature_store(folder / 's1.avi.npy')
    for path in (corpus / 'features.hdf5', folder):
        with pytest.raises(FeatureError, match=r"video 'v_x' is not in the features"):
            open_feature_store(path).read('v_x')


def test_damage_of_an_hdf5_file_is_named(tmp_path):
    path, rng = tmp_path / 'broken.hdf5', np.random.default_rng(0)
    path.write_bytes(b'not hdf5 at all')
    with pytest.raises(FeatureError, match=r'broken\.hdf5: cannot read.*damaged'):
        open_feature_store(path).video_ids()
    with h5py.File(path, 'w') as file:
        file['v'] = rng.random((1000, 100))
    path.write_bytes(path.read_bytes()[:400_000])
    with pytest.raises(FeatureError, match=r'broken\.hdf5: cannot read'):
        open_feature_store(path).read('v')
    with h5py.File(path, 'w') as file:
        how = dict(chunks=(50, 40), compression='gzip')
        data = file.create_dataset('v_a', data=rng.random((50, 40)), **how)
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(FeatureError, match=r"broken\.hdf5: cannot read video 'v_a'"):
        open_feature_store(path).read('v_a')


@pytest.mark.parametrize(
    ('array', 'message', 'kind'),
    [
        (np.zeros((0, 5)), r'shape \(0, 5\)', 'empty features'),
        (np.zeros((3, 0)), r'shape \(3, 0\)', 'empty features'),
        (np.zeros(5), r'shape \(5,\)', 'features not of rank 2'),
        (np.zeros((1, 3, 5)), r'shape \(1, 3, 5\)', 'features not of rank 2'),
        ([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]], '2 of 3 rows .first: row 1', 'NaN or Inf'),
        (np.array([[b'x']]), 'must be numbers', 'not numbers'),
    ],
)
def test_unusable_features_are_named(tmp_path, array, message, kind):
    with h5py.File(tmp_path / 'f.hdf5', 'w') as file:
        file['v_a'] = array
    with pytest.raises(FeatureError, match=rf"f\.hdf5: video 'v_a'.*{message}") as caught:
        open_feature_store(tmp_path / 'f.hdf5').read('v_a')
    assert kind in caught.value.kind


def test_an_array_that_was_never_written_is_named(tmp_path):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file.create_dataset('v_a', (3, 2), np.float32)
        file.create_dataset('v_b', (30, 2), np.float32, chunks=(10, 2))[:20] = 1
        file['v_c'] = h5py.Empty(np.float32)
        file.create_dataset('v_d', (3, 2), np.float32)[:] = 0
    store = open_feature_store(tmp_path / 'f.h5')
    for look in (store.read, store.shape):
        for video_id, how in (('v_a', 'never'), ('v_b', 'written in 2 of 3'), ('v_c', 'never')):
            with pytest.raises(FeatureError, match=rf"f\.h5: video '{video_id}' was {how}"):
                look(video_id)
    assert store.read('v_d').shape == (3, 2), 'zeros that were written are values'


@pytest.mark.parametrize('failures', [1, 2])
def test_a_failed_read_is_tried_once_more_with_a_fresh_handle(corpus, monkeypatch, failures):
    store, handles = open_feature_store(corpus / 'features.hdf5'), []
    original = HDF5FeatureStore._dataset

    def fail(self, video_id):
        handles.append(self.file().id.id)
        if len(handles) <= failures:
            raise OSError('disk gone')
        return original(self, video_id)

    monkeypatch.setattr(HDF5FeatureStore, '_dataset', fail)
    if failures == 1:
        assert store.read('garden').shape == (1, 5)
    else:
        with pytest.raises(FeatureError, match=r"video 'garden' \(disk gone\)"):
            store.read('garden')
    assert len(set(handles)) == 2


def test_one_handle_serves_all_reads_and_does_not_travel(corpus):
    store = open_feature_store(corpus / 'features.hdf5')
    store.read('garden')
    handle = store.file()
    store.read('kitchen.avi')
    assert store.file() is handle
    assert pickle.loads(pickle.dumps(store)).read('garden').shape == (1, 5)
    store.close()
    assert not handle
    assert store.read('garden').shape == (1, 5)


def _read_in_child(store, expected, inherited, queue):
    ok = all(np.array_equal(store.read('kitchen.avi'), expected) for _ in range(20))
    queue.put((ok, store.file() is not inherited))


def test_forked_workers_open_their_own_handle(corpus):
    store = open_feature_store(corpus / 'features.hdf5')
    expected = store.read('kitchen.avi')  # open in the parent before the workers start
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    workers = [
        context.Process(target=_read_in_child, args=(store, expected, store.file(), queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for _ in range(20):
        assert np.array_equal(store.read('kitchen.avi'), expected)
    results = [queue.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [(True, True)] * 2


CHANGES = {  # what is done to a file
    'replaced': lambda path: os.replace(shutil.copy(path, path.with_suffix('.new')), path),
    'rewritten': lambda path: (path.write_bytes(path.read_bytes()), os.utime(path, ns=(0, 1))),
    'truncated': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'removed': lambda path: path.unlink(),
}


@pytest.mark.parametrize('name', ['features.hdf5', 's1.avi.npy', 'v_b.pt', 'v_z.npz'])
@pytest.mark.parametrize('how', CHANGES)
def test_a_file_that_changes_while_in_use_is_noticed(corpus, folder, how, name):
    path, video_id = folder, os.path.splitext(name)[0]
    if name == 'features.hdf5':
        path, video_id = corpus / name, 'garden'
    store = open_feature_store(path)
    store.read(video_id)
    worker, late = pickle.loads(pickle.dumps(store)), open_feature_store(path)
    version = store.video_version(video_id)
    CHANGES[how](path if path.is_file() else path / name)
    message = 'was removed while' if how == 'removed' else 'was replaced or changed while'
    for reader, expected in ((store, None), (worker, None), (late, version)):
        with pytest.raises(FeatureError, match=message) as caught:
            reader.read(video_id, expected)
        assert str(path) in str(caught.value)
        assert 'changed' in caught.value.kind


def test_a_file_that_appears_before_the_one_in_use_is_noticed(folder):
    store = open_feature_store(folder)
    store.read('v_b')
    np.save(folder / 'other.npy', np.ones((4, 2)))  # of no video in use
    store.read('v_b')
    np.save(folder / 'v_b.npy', np.ones((4, 2)))
    with pytest.raises(FeatureError, match="video 'v_b' was replaced or changed while"):
        store.read('v_b')


def test_a_file_that_is_replaced_during_a_read_is_noticed(folder, monkeypatch):
    store = open_feature_store(folder)
    store.read('s1.avi')
    original = store._read_array

    def read(*args):
        CHANGES['replaced'](folder / 's1.avi.npy')
        return original(*args)

    monkeypatch.setattr(store, '_read_array', read)
    with pytest.raises(FeatureError, match='was replaced or changed while'):
        store.read('s1.avi')


def test_a_moment_without_the_disk_is_no_change(corpus, monkeypatch):
    store = open_feature_store(corpus / 'features.hdf5')

    def fail(path):
        raise OSError(116, 'Stale file handle')

    monkeypatch.setattr('mmn_plugin.datasets.feature_store.file_version', fail)
    assert store.read('garden').shape == (1, 5)


@pytest.mark.parametrize('how', CHANGES)
@pytest.mark.parametrize('features', ['features.hdf5', 'npy'])
def test_workers_compare_with_the_file_of_the_dataset(corpus, features, how):
    (corpus / 'npy').mkdir()
    for name in ('kitchen.avi', 'garden'):
        np.save(corpus / 'npy' / f'{name}.npy', np.ones((3, 5)))
    dataset = TemporalGroundingDataset(
        ann_file=str(corpus / 'train.json'),
        data_prefix=dict(features=str(corpus / features)),
        pipeline=[dict(type='LoadClipFeatures')],
        test_mode=True,
    )
    changed = corpus / features if features != 'npy' else corpus / 'npy' / 'garden.npy'
    CHANGES[how](changed)  # between the dataset and its first worker
    spawned = pickle.loads(pickle.dumps(dataset))
    with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool:
        for read in (lambda: pool.submit(dataset.__getitem__, 1).result(120), lambda: spawned[1]):
            with pytest.raises((FeatureError, FileNotFoundError), match=features):
                read()
    if features == 'npy':
        assert dataset[0]['features'].shape == (3, 5), 'the other video is as it was'
