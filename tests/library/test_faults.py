"""Libraries whose writers are killed, whose disk is full, whose files are damaged."""

import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.forked import as_nobody, calls_of, fork, killed_before, result_of
from helpers.tiny_library import content, library, memory_folder, video

from mmn_plugin.errors import InputError, MissingFileError, UserError
from mmn_plugin.files import OutputError
from mmn_plugin.library import FolderStore
from mmn_plugin.locks import FileInUseError

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


def state(store):
    """What `content` gives, and how it is stored, as values that can be compared."""
    found = {
        video_id: (columns, {key: None if x is None else x.tolist() for key, x in arrays.items()})
        for video_id, (columns, arrays) in content(store).items()
    }
    return found, len(store.snapshot().segments)


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
    def act():
        CHANGES[change](FolderStore(tmp_path / 'lib'))

    before = state(FolderStore(copied(folder, tmp_path / 'lib'), readonly=True))
    calls = calls_of(act)
    after = state(FolderStore(tmp_path / 'lib', readonly=True))
    assert before != after
    seen = set()
    for call in [*random.Random(change).sample(range(1, calls), 10), 1, calls]:
        copied(folder, tmp_path / 'lib')
        killed_before(act, call)
        found = state(FolderStore(tmp_path / 'lib', readonly=True))
        assert found in (before, after), call
        seen.add(found == after)
        assert_usable(tmp_path / 'lib')
    assert seen == {False, True}


def test_a_kill_at_any_time_loses_nothing_that_was_added(tmp_path):
    chance, folder = random.Random(0), library(tmp_path / 'lib', video('d')).folder
    last = tmp_path / 'last'
    last.touch()
    for attempt in range(8):

        def add_on(attempt=attempt):
            store = FolderStore(folder)
            for number in range(10_000):
                store.add([video(f'{attempt}.{number}', 2)])
                last.write_text(f'{attempt}.{number}')

        child, receive = fork(add_on)
        while not last.read_text().startswith(f'{attempt}.'):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(receive)
        store = FolderStore(folder)
        found = {name for name in content(store) if name.startswith(f'{attempt}.')}
        assert found == {f'{attempt}.{number}' for number in range(len(found))}
        assert found
        assert last.read_text() in found | {''}  # it may be killed while it writes this
        assert store.verify() == []
    assert_usable(folder)


def leave_half_a_commit(folder):
    """Be killed when changes of the database are on the disk and not committed."""

    def act():
        connection = sqlite3.connect(folder / 'library.sqlite', isolation_level=None)
        connection.execute('PRAGMA cache_size = 1')
        connection.execute('BEGIN')
        connection.execute('DELETE FROM segments')
        connection.execute("UPDATE videos SET folder = 'lost'")
        for number in range(300):
            connection.execute('INSERT INTO settings VALUES (?, ?, 0)', (str(number), 'x' * 500))
        os.kill(os.getpid(), signal.SIGKILL)

    size = (folder / 'library.sqlite').stat().st_size
    assert result_of(act) is None
    assert (folder / 'library.sqlite').stat().st_size > size
    assert (folder / 'library.sqlite-journal').stat().st_size


def test_half_a_commit_is_undone_by_whoever_reads_next(folder, tmp_path):
    before = state(FolderStore(copied(folder, tmp_path / 'lib')))
    leave_half_a_commit(tmp_path / 'lib')
    assert state(FolderStore(tmp_path / 'lib', readonly=True)) == before
    assert_usable(tmp_path / 'lib')


@pytest.fixture
def sealed(folder):
    """Make a folder of a copy that cannot be written, in a place that everyone can read."""
    place = Path(tempfile.mkdtemp())

    def seal(prepare=lambda folder: None):
        prepare(copied(folder, place / 'lib'))
        for path in (place, place / 'lib', place / 'lib' / 'segments'):
            path.chmod(0o555)
        for path in (place / 'lib').rglob('*.*'):
            path.chmod(0o444)
        return place / 'lib'

    yield seal
    for path in (place, place / 'lib', place / 'lib' / 'segments'):
        path.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.parametrize('prepare', [lambda folder: None, leave_half_a_commit])
def test_a_folder_that_cannot_be_written_can_be_read_and_says_so_to_writers(
    folder, sealed, prepare
):
    place = sealed(prepare)

    def use():
        store = FolderStore(place)
        errors = []
        for change in CHANGES.values():
            try:
                change(store)
            except OutputError as error:
                errors.append(str(error))
        chosen = store.select("folder = 'kitchen'")
        return state(store), len(chosen), store.verify(), store.info()['videos'], errors

    found, chosen, problems, videos, errors = as_nobody(use)
    wanted = state(FolderStore(folder, readonly=True))
    assert set(found[0]) == set(wanted[0])
    assert found[0]['a'][1] == wanted[0]['a'][1]
    assert (chosen, problems, videos) == (4, [], 4)
    assert len(errors) == 3
    assert all('cannot be written' in error for error in errors)


def test_writers_wait_for_each_other_and_readers_for_none(tmp_path):
    folder = library(tmp_path / 'lib', video('d')).folder

    def add(name):
        store = FolderStore(folder)
        for number in range(12):
            store.add([video(f'{name}{number}', 3)])
        store.remove([f'{name}0'])
        store.compact()

    writers = [fork(lambda name=name: add(name)) for name in 'ab']
    reader, running, sizes = FolderStore(folder, readonly=True), 2, []
    while running:
        found = content(reader)
        assert all(len(arrays['spans']) in (3, 6) for _, arrays in found.values())
        sizes.append(len(found))
        ended, _ = os.waitpid(-1, os.WNOHANG)
        running -= ended in [child for child, _ in writers]
    for _, receive in writers:
        with os.fdopen(receive) as file:
            assert file.read() == 'null'
    wanted = {f'{name}{number}' for name in 'ab' for number in range(1, 12)} | {'d'}
    assert set(content(reader)) == set(content(FolderStore(folder))) == wanted
    assert len(set(sizes)) > 2
    assert_usable(folder)


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


def test_a_second_writer_that_waits_in_vain_is_told_who_writes(folder, tmp_path, monkeypatch):
    store = FolderStore(copied(folder, tmp_path / 'lib'))
    monkeypatch.setattr('mmn_plugin.library.store._PATIENCE', 0.05)
    with store._writing(), pytest.raises(FileInUseError, match=f'process {os.getpid()} on'):
        FolderStore(store.folder).remove(['a'])
    assert 'a' in content(store)


@pytest.mark.parametrize('change', CHANGES)
def test_a_full_disk_is_one_error_and_leaves_the_library_as_it_was(folder, tmp_path, change):
    store = FolderStore(copied(folder, tmp_path / 'lib'))
    before, kept = state(store), (store.folder / 'library.sqlite').stat().st_size

    def act(limit):  # no file may grow beyond it
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            CHANGES[change](FolderStore(store.folder))
        except UserError as error:
            return str(error)

    for limit in (0, 50, 600, 5000, kept - 1):
        message = result_of(lambda limit=limit: act(limit))
        assert message is None or 'could not be written' in message
        assert message is not None or limit > 600
        if message is not None:
            assert state(FolderStore(store.folder, readonly=True)) == before
        store = FolderStore(copied(folder, tmp_path / 'lib'))
    assert_usable(store.folder)


@pytest.mark.parametrize('name', ['fsync', 'replace'])
@pytest.mark.parametrize('change', ['add', 'compact'])
def test_a_disk_that_fills_at_a_late_step_leaves_the_library_as_it_was(
    folder, tmp_path, monkeypatch, name, change
):
    store = FolderStore(copied(folder, tmp_path / 'lib'))
    before, working = state(store), getattr(os, name)
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
        assert state(store) == before
    monkeypatch.setattr(os, name, working)
    assert_usable(store.folder)


def first_segment(folder):
    return sorted((folder / 'segments').iterdir())[0]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 64
    path.write_bytes(data)


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
    offset = store.snapshot().segments[0]._blocks['others of iou']['offset']
    flip(path, offset + 5)
    assert store.verify() == [
        f"{path}: the block 'others of iou' is damaged (its checksum differs); the videos in it: "
        "'a', 'b'"
    ]
    with pytest.raises(InputError, match=r"'others of iou' is damaged .*names the videos to upd"):
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


def test_a_flipped_byte_of_the_database_is_found_or_changes_nothing(folder, tmp_path):
    before = state(FolderStore(folder))
    found, used = 0, np.frombuffer((folder / 'library.sqlite').read_bytes(), np.uint8).nonzero()[0]
    for place in random.Random(0).sample(used.tolist(), 80):
        path = copied(folder, tmp_path / 'lib') / 'library.sqlite'
        flip(path, place)
        try:
            store = FolderStore(path.parent, readonly=True)
            problems = store.verify()
            same = problems or state(store)[0] == before[0]
        except UserError as error:
            problems, same = [str(error)], True
        assert same, place
        found += bool(problems)
        assert all(str(path.parent) in problem for problem in problems), place
    assert found > 20


def test_a_reader_that_meets_a_file_that_has_just_gone_looks_again(folder, tmp_path, monkeypatch):
    writer = FolderStore(copied(folder, tmp_path / 'lib'))
    reader = FolderStore(writer.folder, readonly=True)
    path_of = reader._path

    def compact_first(number):
        monkeypatch.setattr(reader, '_path', path_of)
        writer.compact()
        return path_of(number)

    monkeypatch.setattr(reader, '_path', compact_first)
    assert set(content(reader)) == set('abcd')
    assert len(reader.snapshot().segments) == 1


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
