"""Libraries whose writers are killed, whose disk is full, whose files are damaged."""

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.fault_table import FAULTS
from helpers.library_faults import (
    Ground,
    flip,
    kill_trials,
    leave_half_a_commit,
    state_of,
)
from helpers.tiny_library import content, library, memory_folder, video

from mmn_plugin.errors import InputError, MissingFileError, UserError
from mmn_plugin.library import FolderStore
from mmn_plugin.library.segment import Segment

CHANGES = {
    'add': lambda store: store.add([video('new', 5), video('b', 4, seed=9)], replace=True),
    'remove': lambda store: store.remove(['a', 'c']),
    'compact': lambda store: store.compact(),
}


@pytest.fixture(scope='module')
def folder():
    """A library of four videos in three segments, with removed moments."""
    with memory_folder() as place:
        yield four_videos(place / 'lib')


def four_videos(folder):
    store = library(folder)
    for names in ('ab', 'cx', 'd'):
        store.add([video(name, 4 + len(names)) for name in names])
    store.remove(['x'])
    store.close()
    return store.folder


def copied(folder, to):
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(folder, to)


def assert_usable(folder):
    """Nothing is damaged, and the next writer leaves what is named and nothing else."""
    store = FolderStore(folder)
    assert store.verify() == []
    store.add([video('next', 2)])
    assert {'next', 'd'} <= set(content(store))
    named = {segment.path for segment in store.snapshot().segments}
    assert set((folder / 'segments').iterdir()) == named
    assert {path.name for path in folder.iterdir()} == {'segments', 'library.sqlite'}
    store.close()


@pytest.mark.parametrize('change', CHANGES)
def test_a_kill_at_any_moment_leaves_the_last_complete_state(folder, tmp_path, change):
    place = tmp_path / 'lib'

    def act():
        store = FolderStore(place)
        if change != 'add' or 'new' not in store.snapshot().by_id:
            CHANGES[change](store)

    trials = kill_trials(
        act=act,
        prepare=lambda: copied(folder, place),
        state=lambda: state_of(FolderStore(place, readonly=True)),
        check=lambda: assert_usable(place),
        times=12,
        seed=change,
    )
    assert {trial() for trial in trials} == {'as before', 'as after'}  # of the first, the last


@pytest.fixture(scope='module')
def ground():
    """A whole library, with its model."""
    with memory_folder() as place:
        yield Ground(place)


@pytest.mark.parametrize('what', FAULTS)
def test_a_library_stands(ground, what):
    fault = FAULTS[what]
    found = [trial() for trial in fault.trials(ground, fault.few)]
    assert found


def test_half_a_commit_is_undone_by_whoever_reads_next(folder, tmp_path):
    before = state_of(FolderStore(copied(folder, tmp_path / 'lib')))
    leave_half_a_commit(tmp_path / 'lib')
    assert state_of(FolderStore(tmp_path / 'lib', readonly=True)) == before
    assert_usable(tmp_path / 'lib')


def test_threads_share_a_store(tmp_path):
    store = library(tmp_path / 'lib', video('d'))
    errors = []

    def work(name):
        try:
            for number in range(4):
                store.add([video(f'{name}{number}', 2)])
                assert f'{name}{number}' in store.snapshot().by_id
                assert store.get('dtype') == 'float16'
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in 'abc']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(content(store)) == 13


@pytest.mark.parametrize('name', ['fsync', 'replace'])
@pytest.mark.parametrize('change', ['add', 'compact'])
def test_a_disk_that_fills_at_a_late_step_leaves_the_library_as_it_was(
    folder, tmp_path, monkeypatch, name, change
):
    store = FolderStore(copied(folder, tmp_path / 'lib'))
    before, working = state_of(store), getattr(os, name)
    for failing in range(1, 4):
        calls = 0

        def fail(*arguments, failing=failing):
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return working(*arguments)

        monkeypatch.setattr(os, name, fail)
        try:
            CHANGES[change](store)
        except UserError as error:
            assert 'No space left on device' in str(error)  # noqa: PT017
            assert calls == failing
        else:
            assert failing > 1
            assert calls < failing
            break
        monkeypatch.setattr(os, name, working)
        assert state_of(store) == before
    monkeypatch.setattr(os, name, working)
    assert_usable(store.folder)


def first_segment(folder):
    return sorted((folder / 'segments').iterdir())[0]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    'is truncated': truncate,
    'is gone': Path.unlink,
    'header is damaged': lambda path: flip(path, 100),
    'is no file of moments': lambda path: path.write_bytes(b''),
}


@pytest.mark.parametrize('message', DAMAGES)
def test_a_damaged_file_is_named_and_its_videos_can_be_updated(folder, tmp_path, message):
    folder = copied(folder, tmp_path / 'lib')
    path = first_segment(folder)
    DAMAGES[message](path)
    store = FolderStore(folder)
    for use in (store.snapshot, store.compact, store.info):
        with pytest.raises((InputError, MissingFileError), match=f'{path.name}.* {message}'):
            use()
    (problem,) = store.verify()
    assert problem.startswith(str(path))
    assert message in problem
    assert problem.endswith("the videos in it: 'a', 'b'")
    store.add([video('a', 6), video('b', 6)], replace=True)
    assert store.verify() == []
    assert set(content(store)) == set('abcd')
    assert not path.exists()


def test_verify_names_file_and_block_of_a_flipped_byte_and_compact_refuses(folder, tmp_path):
    folder = copied(folder, tmp_path / 'lib')
    store, path = FolderStore(folder), first_segment(folder)
    before = store.snapshot().by_id
    offset = store.snapshot().segments[0]._blocks['others 16 of iou']['offset']
    flip(path, offset + 5)
    assert store.verify() == [
        f"{path}: the block 'others 16 of iou' is damaged (its checksum differs); "
        "the videos in it: 'a', 'b'"
    ]
    with pytest.raises(
        InputError, match=r"'others 16 of iou' is damaged .*names the videos to upd"
    ):
        store.compact()
    assert store.snapshot().by_id == before
    store.remove(['a', 'b'])
    assert store.verify() == []
    store.compact()
    assert set(content(store)) == set('cd')


def test_a_damaged_rotation_is_not_taken_over(folder, tmp_path):
    folder = copied(folder, tmp_path / 'lib')
    store = FolderStore(folder)
    largest = max(store.snapshot().segments, key=lambda segment: segment.rows)
    flip(largest.path, largest._blocks['rotation of iou']['offset'] + 3)
    added = video('new', 5)
    store.add([added])
    arrays = content(store)['new'][1]
    assert np.abs(arrays['iou'] - added.embedding.embeddings['iou'].numpy()).max() < 4e-3


def before_each_path(monkeypatch, store, act, times):
    """Another process does something just before a file of moments is opened, so many times."""
    path_of, left = store._path, list(range(times))

    def act_first(number):
        if left:
            left.pop()
            act()
        return path_of(number)

    monkeypatch.setattr(store, '_path', act_first)
    return left


def test_a_reader_whose_files_go_looks_again_as_long_as_they_do(folder, tmp_path, monkeypatch):
    writer = FolderStore(copied(folder, tmp_path / 'lib'))
    reader = FolderStore(writer.folder, readonly=True)

    def replace_all():
        writer.add([video('d', 5)], replace=True)
        writer.compact()

    left = before_each_path(monkeypatch, reader, replace_all, times=9)
    assert set(content(reader)) == set('abcd')
    assert left == []
    assert len(reader.snapshot().segments) == 1


def test_what_is_compacted_while_it_is_verified_is_not_damaged(folder, tmp_path, monkeypatch):
    writer = FolderStore(copied(folder, tmp_path / 'lib'))
    reader = FolderStore(writer.folder, readonly=True)
    seen = []
    before_each_path(monkeypatch, reader, writer.compact, times=1)
    monkeypatch.setattr(Segment, 'verify', lambda segment: seen.append(segment.path) or [])
    assert reader.verify() == []
    assert seen[-1] == first_segment(writer.folder)  # the new one is looked at


def test_a_file_that_goes_while_it_is_opened_is_read(folder, tmp_path, monkeypatch):
    path = first_segment(copied(folder, tmp_path / 'lib'))
    whole, mapped = Segment(path).spans.copy(), np.memmap

    def removed_before(*arguments):
        path.unlink()
        return mapped(*arguments)

    monkeypatch.setattr(np, 'memmap', removed_before)
    assert np.array_equal(Segment(path).spans, whole)


def test_sizes_are_told_of_what_is_compacted_meanwhile(folder, tmp_path, monkeypatch):
    writer = FolderStore(copied(folder, tmp_path / 'lib'))
    reader = FolderStore(writer.folder, readonly=True)
    size, snapshot = reader.info()['bytes'], reader.snapshot
    monkeypatch.setattr(reader, 'snapshot', lambda: (snapshot(), writer.compact())[0])
    assert abs(reader.info()['bytes'] - size) < 4096 * 8  # but for pages of the database
    monkeypatch.undo()
    assert reader.info()['segments'] == 1


def test_moments_are_on_the_disk_before_the_database_names_them(folder, tmp_path, monkeypatch):
    store = FolderStore(copied(folder, tmp_path / 'lib'))
    steps, replace = [], os.replace

    def named():
        return len(FolderStore(store.folder, readonly=True).snapshot().segments)

    def synced(handle):
        name = Path(os.readlink(f'/proc/self/fd/{handle}')).name
        steps.append(('fsync', name, named()))

    def replaced(source, target):
        steps.append(('replace', Path(source).name, named()))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', replaced)
    store.add([video('new', 3)])
    assert steps == [
        ('fsync', '00000004.moments.part', 3),
        ('replace', '00000004.moments.part', 3),
        ('fsync', 'segments', 3),
    ]
    assert named() == 4
