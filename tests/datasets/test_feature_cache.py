"""Pooled features that are kept."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmn_plugin.datasets import (
    FeatureError,
    FolderFeatureCache,
    LoadClipFeatures,
    MemoryFeatureCache,
    TemporalGroundingDataset,
)

KINDS = ('memory', 'folder')


@pytest.fixture
def build(corpus, pipeline):
    def make(kind=None, **kwargs):
        cache = str(corpus / 'cache') if kind == 'folder' else kind
        options = dict(
            ann_file='train.json',
            data_root=str(corpus),
            pipeline=pipeline,
            data_prefix=dict(features='features.hdf5'),
            feature_cache=cache,
        )
        return TemporalGroundingDataset(**{**options, **kwargs})

    return make


@pytest.fixture
def reads(monkeypatch):
    """Videos that were read from a feature file, in order."""
    seen, original = [], LoadClipFeatures.transform

    def transform(self, results):
        seen.append(results['video_id'])
        return original(self, results)

    monkeypatch.setattr(LoadClipFeatures, 'transform', transform)
    return seen


def inputs(dataset):
    return [dataset[i]['inputs'] for i in range(len(dataset))]


def write_another(path, rows=9):
    """Other features under the same names, with the same file size where rows are the same."""
    with h5py.File(path, 'w') as file:
        file['kitchen.avi'] = np.random.default_rng(5).random((rows, 5), dtype=np.float32)
        file['garden'] = np.random.default_rng(6).random((1, 5), dtype=np.float32)


@pytest.mark.parametrize('kind', KINDS)
def test_kept_features_are_the_same_bit_for_bit_and_read_once(build, reads, kind):
    plain = inputs(build())
    reads.clear()
    dataset = build(kind)
    for _ in range(3):
        for kept, fresh in zip(inputs(dataset), plain, strict=True):
            assert torch.equal(kept, fresh)
    assert reads == ['kitchen.avi', 'garden']


@pytest.mark.parametrize('kind', KINDS)
def test_what_a_reader_does_to_its_sample_stays_its_own(build, kind):
    dataset = build(kind)
    first = inputs(dataset)
    for tensor in inputs(dataset):
        tensor.fill_(7.0)
    for kept, fresh in zip(inputs(dataset), first, strict=True):
        assert torch.equal(kept, fresh)


def test_a_folder_serves_later_runs(build, reads):
    inputs(build('folder'))
    reads.clear()
    inputs(build('folder', test_mode=True))
    assert reads == []


@pytest.mark.parametrize('rows', [7, 9])
def test_a_changed_source_is_read_again(build, corpus, reads, rows):
    inputs(build('folder'))
    write_another(corpus / 'features.hdf5', rows)
    fresh = inputs(build())
    reads.clear()
    for kept, wanted in zip(inputs(build('folder')), fresh, strict=True):
        assert torch.equal(kept, wanted)
    assert reads == ['kitchen.avi', 'garden']


@pytest.mark.parametrize('change', [dict(num_segments=4, clamp_last=False), dict(num_segments=3)])
def test_other_pooling_is_computed_anew(build, pipeline, change):
    inputs(build('folder'))
    steps = [pipeline[0], dict(type='PoolClipFeatures', **change), pipeline[2]]
    for kept, wanted in zip(
        inputs(build('folder', pipeline=steps)), inputs(build(pipeline=steps)), strict=True
    ):
        assert torch.equal(kept, wanted)


@pytest.mark.parametrize('how', ['changed', 'removed'])
@pytest.mark.parametrize('source', ['npy/garden.npy', 'features.hdf5'])
@pytest.mark.parametrize('kind', KINDS)
def test_kept_features_do_not_hide_that_their_source_changed(build, corpus, kind, source, how):
    (corpus / 'npy').mkdir()
    for name in ('kitchen.avi', 'garden'):
        np.save(corpus / 'npy' / f'{name}.npy', np.ones((4, 5), np.float32))
    dataset = build(kind, data_prefix=dict(features=source.partition('/')[0]))
    inputs(dataset)
    path = corpus / source
    path.unlink() if how == 'removed' else os.utime(path, ns=(0, 1))
    with pytest.raises(FeatureError, match=r'was (removed|replaced or changed) while'):
        dataset[1]


def test_several_files_are_kept_together(build, corpus):
    write_another(corpus / 'more.hdf5')
    prefix = dict(features=['features.hdf5', 'more.hdf5'])
    inputs(build('folder'))
    inputs(build('folder', data_prefix=prefix))
    for kept, wanted in zip(
        inputs(build('folder', data_prefix=prefix)), inputs(build(data_prefix=prefix)), strict=True
    ):
        assert kept.shape == (4, 10)
        assert torch.equal(kept, wanted)


def test_forked_workers_fill_one_memory(build, reads):
    dataset = build('memory')
    wanted = inputs(build())
    loader = DataLoader(
        dataset, batch_size=1, num_workers=2, collate_fn=list, multiprocessing_context='fork'
    )
    list(loader)
    reads.clear()
    for kept, fresh in zip(inputs(dataset), wanted, strict=True):  # here, where nobody has read
        assert torch.equal(kept, fresh)
    assert reads == []


def test_a_pickled_dataset_carries_no_features(build):
    dataset = build('memory', indices=1)
    inputs(dataset)
    copied = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copied[0]['inputs'], dataset[0]['inputs'])
    cache = MemoryFeatureCache(['a'] * 1000, (256, 500))
    assert len(pickle.dumps(cache)) < 10_000


def test_a_damaged_file_is_made_again(build, corpus):
    wanted = inputs(build('folder'))
    files = sorted((corpus / 'cache').iterdir())
    files[0].write_bytes(b'')
    files[1].write_bytes(files[1].read_bytes()[:-8])
    for _ in range(2):
        for kept, fresh in zip(inputs(build('folder')), wanted, strict=True):
            assert torch.equal(kept, fresh)
    assert all(np.load(file).shape == (4, 5) for file in files)
    assert sorted((corpus / 'cache').iterdir()) == files


def test_a_place_that_cannot_be_written_to_is_said_once_and_the_run_goes_on(
    build, corpus, monkeypatch
):
    wanted = inputs(build())

    def full(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, 'replace', full)
    said = []
    monkeypatch.setattr(
        'mmn_plugin.datasets.feature_cache.print_log', lambda text, **_: said.append(text)
    )
    for kept, fresh in zip(inputs(build('folder')), wanted, strict=True):
        assert torch.equal(kept, fresh)
    assert len(said) == 1
    assert 'No space left on device' in said[0]
    assert 'the run goes on' in said[0]
    assert list((corpus / 'cache').iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_said(build, corpus, monkeypatch):
    (corpus / 'cache').write_text('')
    said = []
    monkeypatch.setattr(
        'mmn_plugin.datasets.feature_cache.print_log', lambda text, **_: said.append(text)
    )
    assert len(inputs(build('folder'))) == 2
    assert len(said) == 1


def test_too_little_memory_is_said_and_the_run_goes_on(build, monkeypatch):
    def none_left(*args):
        raise OSError(12, os.strerror(12))

    monkeypatch.setattr('mmn_plugin.datasets.feature_cache.mmap.mmap', none_left)
    said = []
    monkeypatch.setattr(
        'mmn_plugin.datasets.feature_cache.print_log', lambda text, *_: said.append(text)
    )
    assert len(inputs(build('memory'))) == 2
    assert 'the run goes on without it' in said[0]


def test_a_pipeline_that_does_not_pool_is_refused(build, pipeline):
    with pytest.raises(ValueError, match='has no such pair'):
        build('memory', pipeline=[pipeline[0], pipeline[2]])


def test_names_of_any_kind_become_files(tmp_path):
    cache, mark = FolderFeatureCache(tmp_path, (1, 2)), bytes(16)
    for name in ('a/b', '../c', 'x' * 400, 'ü %'):
        features = np.random.rand(1, 2).astype(np.float32)
        cache.put(name, mark, features)
        assert np.array_equal(cache.get(name, mark), features)
    assert all(path.parent == tmp_path for path in Path(tmp_path).rglob('*.npy'))


@pytest.mark.parametrize('value', [5, True, ''])
def test_what_is_no_place_is_refused_in_one_message(build, value):
    with pytest.raises(ValueError, match=rf"None, 'memory' or a folder, not {value!r}: .*train"):
        build(feature_cache=value)


def test_a_folder_may_be_a_path(build, corpus):
    inputs(build(feature_cache=corpus / 'cache'))
    assert list((corpus / 'cache').iterdir())
