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
    FolderFeatureStore,
    HDF5FeatureStore,
    TemporalGroundingDataset,
    open_feature_store,
)


@pytest.fixture
def nested(tmp_path):
    with h5py.File(tmp_path / 'nested.hdf5', 'w') as file:
        file['v_a/c3d_features'] = np.arange(6, dtype=np.float64).reshape(3, 2)
    return tmp_path / 'nested.hdf5'


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / 'features'
    path.mkdir()
    np.save(path / 's1.avi.npy', np.ones((3, 2), np.float16))
    torch.save(torch.full((4, 2), 2.0, dtype=torch.bfloat16), path / 'v_b.pt')
    torch.save({'clip': torch.full((5, 2), 3.0)}, path / 'v_c.pth')
    np.savez(path / 'v_z.npz', features=np.zeros((6, 2)))
    return path


def write(path, video_id, array):
    with h5py.File(path, 'a') as file:
        file[video_id] = array
    return HDF5FeatureStore(path)


def test_flat_hdf5_is_read_as_float32(corpus):
    store = open_feature_store(corpus / 'features.hdf5')
    assert store.video_ids() == {'kitchen.avi', 'garden'}
    assert store.shape('kitchen.avi') == (7, 5)
    features = store.read('kitchen.avi')
    assert features.dtype == np.float32
    assert features.shape == (7, 5)


def test_nested_hdf5_is_read_under_its_key(nested):
    features = open_feature_store(nested, 'c3d_features').read('v_a')
    np.testing.assert_array_equal(features, [[0, 1], [2, 3], [4, 5]])
    assert features.dtype == np.float32


def test_a_missing_key_is_named_with_what_is_there(nested):
    with pytest.raises(FeatureError, match=r"group that holds \['c3d_features'\].*feature_key"):
        open_feature_store(nested).read('v_a')
    with pytest.raises(FeatureError, match=r"no 'i3d'; it holds \['c3d_features'\]"):
        open_feature_store(nested, 'i3d').read('v_a')


def test_a_key_for_a_flat_file_is_refused(corpus):
    with pytest.raises(FeatureError, match='feature_key=None'):
        open_feature_store(corpus / 'features.hdf5', 'c3d_features').read('garden')


def test_folder_of_npy_and_pt_files(folder):
    store = open_feature_store(folder)
    assert isinstance(store, FolderFeatureStore)
    assert store.video_ids() == {'s1.avi', 'v_b', 'v_c', 'v_z'}
    assert store.shape('s1.avi') == (3, 2)
    np.testing.assert_array_equal(store.read('s1.avi'), np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(store.read('v_b'), np.full((4, 2), 2, np.float32))
    np.testing.assert_array_equal(
        open_feature_store(folder, 'clip').read('v_c'), np.full((5, 2), 3, np.float32)
    )


def test_a_pt_file_that_holds_more_than_a_tensor_is_refused(folder):
    with pytest.raises(FeatureError, match=r'v_c.pth holds a dict, not a tensor.*feature_key'):
        open_feature_store(folder).read('v_c')


def test_npz_files_are_read_by_key_or_as_the_only_array(folder):
    clips, other = np.full((3, 2), 4.0), np.full((3, 2), 5.0)
    np.savez(folder / 'v_d.npz', features=clips, times=other)
    np.savez_compressed(folder / 'v_e.npz', anything=clips)
    np.savez(folder / 'v_f.npz', slow=clips, fast=other)
    store = open_feature_store(folder)
    assert {'v_d', 'v_e', 'v_f'} <= store.video_ids()
    assert store.shape('v_d') == (3, 2)
    for video_id in ('v_d', 'v_e'):
        np.testing.assert_array_equal(store.read(video_id), clips)
    with pytest.raises(FeatureError, match=r"v_f\.npz holds the arrays \['fast', 'slow'\].*key"):
        store.read('v_f')
    np.testing.assert_array_equal(open_feature_store(folder, 'fast').read('v_f'), other)
    np.testing.assert_array_equal(open_feature_store(folder, 'times').read('v_d'), other)
    with pytest.raises(FeatureError, match=r"holds the arrays \['features', 'times'\]"):
        open_feature_store(folder, 'fast').read('v_d')


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[: len(content) // 2],
        lambda content: b'nothing',
        lambda content: b'',
        lambda content: content.replace(content[60:90], bytes(30)),
    ],
)
def test_a_damaged_npz_file_names_the_video(folder, damage):
    path = folder / 'v_d.npz'
    np.savez_compressed(path, features=np.random.default_rng(0).random((50, 20)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FeatureError, match="cannot read the features of video 'v_d'"):
        open_feature_store(folder).read('v_d')


def test_arrays_under_the_suffix_of_the_other_kind_are_read(folder):
    np.savez(folder / 'v_d.npz', features=np.ones((3, 2)))
    os.replace(folder / 'v_d.npz', folder / 'v_d.npy')
    os.replace(folder / 's1.avi.npy', folder / 's1.avi.npz')
    store = open_feature_store(folder)
    for video_id in ('v_d', 's1.avi'):
        np.testing.assert_array_equal(store.read(video_id), np.ones((3, 2)))


@pytest.mark.parametrize(
    'tensor',
    [
        torch.full((3, 2), 2.0, requires_grad=True),
        torch.nn.Parameter(torch.full((3, 2), 2.0)),
        torch.full((3, 2), 2.0).to_sparse(),
        torch.full((3, 2), 2.0, dtype=torch.float64).T.T,
        torch.full((3, 2), -2.0, dtype=torch.complex64).conj().real.neg(),
        torch.full((3, 2), 2.0, dtype=torch.bfloat16, requires_grad=True),
    ],
)
def test_tensors_of_any_kind_are_read(folder, tensor):
    torch.save(tensor, folder / 'v_d.pt')
    np.testing.assert_array_equal(open_feature_store(folder).read('v_d'), np.full((3, 2), 2.0))


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


def test_a_missing_file_lists_the_folder(corpus):
    with pytest.raises(FileNotFoundError, match=r'feature\.h5 do not exist.*features\.hdf5'):
        open_feature_store(corpus / 'feature.h5')


def test_a_single_array_is_not_a_store(folder):
    with pytest.raises(FeatureError, match='one per video'):
        open_feature_store(folder / 's1.avi.npy')


def test_an_absent_video_is_named(corpus, folder):
    for path in (corpus / 'features.hdf5', folder):
        with pytest.raises(FeatureError, match=r"video 'v_x' is not in the features"):
            open_feature_store(path).read('v_x')


def test_a_corrupt_file_is_named(tmp_path):
    path = tmp_path / 'broken.hdf5'
    path.write_bytes(b'not hdf5 at all')
    with pytest.raises(FeatureError, match=r'broken\.hdf5: cannot read.*damaged'):
        open_feature_store(path).video_ids()


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / 'cut.hdf5'
    with h5py.File(path, 'w') as file:
        file['v'] = np.random.default_rng(0).random((1000, 100))
    path.write_bytes(path.read_bytes()[:400_000])
    with pytest.raises(FeatureError, match=r'cut\.hdf5: cannot read'):
        open_feature_store(path).read('v')


def test_a_damaged_chunk_names_the_video(tmp_path):
    path = tmp_path / 'chunk.hdf5'
    with h5py.File(path, 'w') as file:
        data = file.create_dataset(
            'v_a',
            data=np.random.default_rng(0).random((50, 40)),
            chunks=(50, 40),
            compression='gzip',
        )
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(FeatureError, match=r"chunk\.hdf5: cannot read video 'v_a'"):
        open_feature_store(path).read('v_a')


@pytest.mark.parametrize(
    ('array', 'message', 'kind'),
    [
        (np.zeros((0, 5)), 'is empty', 'empty features'),
        (np.zeros((3, 0)), 'is empty', 'empty features'),
        (np.zeros(5), r'shape \(5,\)', 'features not of rank 2'),
        (np.zeros((1, 3, 5)), r'shape \(1, 3, 5\)', 'features not of rank 2'),
        (
            np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]]),
            '2 of 3 rows .first: row 1',
            'NaN or Inf',
        ),
        (np.array([[b'x']]), 'must be numbers', 'not numbers'),
    ],
)
def test_unusable_features_are_named(tmp_path, array, message, kind):
    store = write(tmp_path / 'f.hdf5', 'v_a', array)
    with pytest.raises(FeatureError, match=rf"f\.hdf5: video 'v_a'.*{message}") as caught:
        store.read('v_a')
    assert kind in caught.value.kind


def test_an_array_that_was_never_written_is_named(tmp_path):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file.create_dataset('v_a', (3, 2), np.float32)
        file.create_dataset('v_b', (30, 2), np.float32, chunks=(10, 2))[:20] = 1
        file['v_c'] = h5py.Empty(np.float32)
        file.create_dataset('v_d', (3, 2), np.float32)[:] = 0
    store = open_feature_store(tmp_path / 'f.h5')
    for look in (store.read, store.shape):
        with pytest.raises(FeatureError, match=r"f\.h5: video 'v_a' was created, but never"):
            look('v_a')
        with pytest.raises(FeatureError, match=r"video 'v_b' was written in 2 of 3 chunks"):
            look('v_b')
        with pytest.raises(FeatureError, match=r"video 'v_c' is empty"):
            look('v_c')
    assert store.read('v_d').shape == (3, 2), 'zeros that were written are values'


def test_a_key_of_something_else_than_an_array_is_named(tmp_path):
    with h5py.File(tmp_path / 'f.h5', 'w') as file:
        file['v_a/i3d/rgb'] = np.ones((3, 2))
    assert open_feature_store(tmp_path / 'f.h5', 'i3d/rgb').read('v_a').shape == (3, 2)
    with pytest.raises(FeatureError, match="video 'v_a': 'i3d' is not an array"):
        open_feature_store(tmp_path / 'f.h5', 'i3d').read('v_a')


def test_a_failed_read_is_tried_once_more(corpus, monkeypatch):
    store = HDF5FeatureStore(corpus / 'features.hdf5')
    original, calls = HDF5FeatureStore._dataset, []

    def fail_first(self, video_id):
        calls.append(self.file().id.id)
        if len(calls) == 1:
            raise OSError('disk hiccup')
        return original(self, video_id)

    monkeypatch.setattr(HDF5FeatureStore, '_dataset', fail_first)
    assert store.read('garden').shape == (1, 5)
    assert len(calls) == 2
    assert calls[0] != calls[1], 'the second attempt needs a fresh handle'


def test_a_second_failure_is_final(corpus, monkeypatch):
    def fail(self, video_id):
        raise OSError('disk gone')

    monkeypatch.setattr(HDF5FeatureStore, '_dataset', fail)
    with pytest.raises(FeatureError, match=r"video 'garden' \(disk gone\)"):
        HDF5FeatureStore(corpus / 'features.hdf5').read('garden')


def test_one_handle_serves_all_reads(corpus):
    store = HDF5FeatureStore(corpus / 'features.hdf5')
    store.read('garden')
    handle = store._handle
    store.read('kitchen.avi')
    assert store._handle is handle
    store.close()
    assert not handle
    assert store.read('garden').shape == (1, 5)


def test_a_pickled_store_carries_no_handle(corpus):
    store = HDF5FeatureStore(corpus / 'features.hdf5')
    store.read('garden')
    copy = pickle.loads(pickle.dumps(store))
    assert copy._handle is None
    assert copy.read('garden').shape == (1, 5)


def _read_in_child(store, expected, inherited, queue):
    ok = all(np.array_equal(store.read('kitchen.avi'), expected) for _ in range(20))
    queue.put((ok, store._owner == os.getpid(), store._handle is not inherited))


def test_forked_workers_open_their_own_handle(corpus):
    store = HDF5FeatureStore(corpus / 'features.hdf5')
    expected = store.read('kitchen.avi')  # open in the parent before the workers start
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    workers = [
        context.Process(target=_read_in_child, args=(store, expected, store._handle, queue))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for _ in range(20):
        assert np.array_equal(store.read('kitchen.avi'), expected)
    results = [queue.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [(True, True, True)] * 2


def test_spawned_workers_open_their_own_handle(corpus):
    store = HDF5FeatureStore(corpus / 'features.hdf5')
    expected = store.read('kitchen.avi')
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        features = pool.submit(store.read, 'kitchen.avi').result(timeout=600)
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize('how', ['replaced', 'extended', 'rewritten'])
def test_a_file_that_changes_while_in_use_is_noticed(corpus, how):
    path = corpus / 'features.hdf5'
    store = HDF5FeatureStore(path)
    store.read('garden')
    worker = pickle.loads(pickle.dumps(store))  # opens the file only after the change
    if how == 'extended':
        store.close()
        with h5py.File(path, 'a') as file:
            file['late'] = np.ones((2, 5))
    else:
        CHANGES[how](path)
    for reader in (store, worker):
        with pytest.raises(FeatureError, match=r'features\.hdf5 was replaced or changed') as caught:
            reader.read('kitchen.avi')
        assert 'changed' in caught.value.kind


CHANGES = {  # what is done to a file
    'replaced': lambda path: os.replace(shutil.copy(path, path.with_suffix('.new')), path),
    'rewritten': lambda path: (path.write_bytes(path.read_bytes()), os.utime(path, ns=(0, 1))),
    'truncated': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'removed': lambda path: path.unlink(),
}


def saying(how):
    return 'was removed while' if how == 'removed' else 'was replaced or changed while'


@pytest.mark.parametrize('name', ['s1.avi.npy', 'v_b.pt', 'v_z.npz'])
@pytest.mark.parametrize('how', CHANGES)
def test_a_file_of_a_folder_that_changes_while_in_use_is_noticed(folder, how, name):
    store, video_id = open_feature_store(folder), os.path.splitext(name)[0]
    store.read(video_id)
    worker, version = pickle.loads(pickle.dumps(store)), store.video_version(video_id)
    CHANGES[how](folder / name)
    for reader, expected in ((store, None), (worker, None), (open_feature_store(folder), version)):
        with pytest.raises(FeatureError, match=f"video '{video_id}' {saying(how)}") as caught:
            reader.read(video_id, expected)
        assert 'changed' in caught.value.kind


def test_a_file_that_appears_before_the_one_in_use_is_noticed(folder):
    store = open_feature_store(folder)
    store.read('v_b')
    np.save(folder / 'other.npy', np.ones((4, 2)))  # of no video in use
    store.read('v_b')
    np.save(folder / 'v_b.npy', np.ones((4, 2)))
    with pytest.raises(FeatureError, match="video 'v_b' was replaced or changed while"):
        store.read('v_b')


@pytest.mark.parametrize('kind', ['folder', 'file'])
def test_a_file_that_is_replaced_during_a_read_is_noticed(corpus, folder, kind, monkeypatch):
    path, video_id = (
        (folder, 's1.avi') if kind == 'folder' else (corpus / 'features.hdf5', 'garden')
    )
    file = folder / 's1.avi.npy' if kind == 'folder' else path
    store = open_feature_store(path)
    store.read(video_id)
    original = store._read_array

    def read(*args):
        CHANGES['replaced'](file)
        return original(*args)

    monkeypatch.setattr(store, '_read_array', read)
    with pytest.raises(FeatureError, match='was replaced or changed while'):
        store.read(video_id)


def test_a_moment_without_the_disk_is_no_change(corpus, monkeypatch):
    store = open_feature_store(corpus / 'features.hdf5')

    def fail(path):
        raise OSError(116, 'Stale file handle')

    monkeypatch.setattr('mmn_plugin.datasets.hdf5_file.file_version', fail)
    assert store.read('garden').shape == (1, 5)


def dataset_of(corpus, features):
    return TemporalGroundingDataset(
        ann_file=str(corpus / 'train.json'),
        data_prefix=dict(features=str(corpus / features)),
        pipeline=[dict(type='LoadClipFeatures')],
        test_mode=True,
    )


@pytest.fixture
def of_folder(corpus):
    """A dataset on a folder with a file for each of its videos."""
    (corpus / 'npy').mkdir()
    for name in ('kitchen.avi', 'garden'):
        np.save(corpus / 'npy' / f'{name}.npy', np.ones((3, 5)))
    return dataset_of(corpus, 'npy')


@pytest.mark.parametrize('how', CHANGES)
def test_workers_compare_with_the_file_of_the_dataset(corpus, how):
    dataset = dataset_of(corpus, 'features.hdf5')
    CHANGES[how](corpus / 'features.hdf5')  # between the dataset and its first worker
    with pytest.raises((FeatureError, FileNotFoundError), match=r'features\.hdf5'):
        dataset[0]


@pytest.mark.parametrize('how', CHANGES)
def test_workers_compare_with_the_folder_of_the_dataset(of_folder, corpus, how):
    CHANGES[how](corpus / 'npy' / 'garden.npy')
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool,
        pytest.raises(FeatureError, match=f"video 'garden' {saying(how)}"),
    ):
        pool.submit(of_folder.__getitem__, 1).result(timeout=120)
    assert of_folder[0]['features'].shape == (3, 5), 'the other video is as it was'


def test_a_spawned_worker_compares_with_the_folder_of_the_dataset(of_folder, corpus):
    CHANGES['replaced'](corpus / 'npy' / 'garden.npy')
    worker = pickle.loads(pickle.dumps(of_folder))
    with pytest.raises(FeatureError, match="video 'garden' was replaced or changed while"):
        worker[1]
