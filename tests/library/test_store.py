import shutil
import sqlite3

import numpy as np
import pytest
import torch
from helpers.tiny_library import WIDTHS, content, library, video

from mmn_plugin.errors import InputError, MissingFileError
from mmn_plugin.files import OutputError
from mmn_plugin.library import FolderStore


def ids(store):
    return sorted(store.snapshot().by_id)


def files(store):
    return sorted(path.name for path in (store.folder / 'segments').iterdir())


def test_a_video_comes_back_with_its_moments(tmp_path):
    added = video('a', 7, trust=True, meta={'camera': 2})
    store = library(tmp_path / 'lib', added)
    columns, arrays = content(FolderStore(tmp_path / 'lib', readonly=True))['a']
    assert columns == ('/videos/a.mp4', 'kitchen', 40.0, 1.75e9, {'camera': 2})
    for space in WIDTHS:
        assert np.abs(arrays[space] - added.embedding.embeddings[space].numpy()).max() < 4e-3
    assert np.array_equal(arrays['spans'], added.embedding.spans)
    assert np.allclose(arrays['lengths'], 4 / 40)
    assert np.array_equal(arrays['trust'], added.embedding.trust)
    assert store.snapshot().allowed() is None


def test_lengths_are_shares_of_a_window(tmp_path):
    added = video('a')
    added.embedding.length_in_windows = 4.0
    assert np.allclose(content(library(tmp_path / 'lib', added))['a'][1]['lengths'], 4 / 10)


def test_videos_of_one_call_share_a_segment_and_only_some_may_have_trust(tmp_path):
    store = library(tmp_path / 'lib')
    store.add([video('a'), video('b', 3, trust=True)])
    found = content(store)
    assert len(store.snapshot().segments) == 1
    assert (found['a'][1]['trust'] == 1).all()
    assert (found['b'][1]['trust'] < 1).all()


def test_removed_moments_belong_to_no_video_and_compact_frees_them(tmp_path):
    store = library(tmp_path / 'lib')
    store.add([video('a'), video('b', 5), video('c', 4)])
    before = content(store)
    assert store.remove(['b', 'unknown']) == 1
    snapshot = store.snapshot()
    assert [rows.tolist() for rows in snapshot.allowed()] == [[True] * 6 + [False] * 5 + [True] * 4]
    assert (snapshot.moments, store.info()['removed_moments']) == (10, 5)
    store.compact()
    assert store.info()['removed_moments'] == 0
    assert store.snapshot().allowed() is None
    after = content(store)
    assert set(after) == {'a', 'c'}
    for video_id in after:
        for space in WIDTHS:
            assert np.abs(after[video_id][1][space] - before[video_id][1][space]).max() < 4e-3
    assert files(store) == ['00000002.moments']
    assert store.verify() == []


def test_a_segment_without_videos_goes_with_the_last_of_them(tmp_path):
    store = library(tmp_path / 'lib', video('a'), video('b'))
    store.remove(['a'])
    assert files(store) == ['00000002.moments']
    store.remove(['b'])
    assert (files(store), store.snapshot().segments) == ([], [])
    assert store.verify() == []


def test_an_update_takes_the_place_of_a_video(tmp_path):
    store = library(tmp_path / 'lib', video('a'), video('b'))
    number = store.snapshot().by_id['a'].number
    with pytest.raises(InputError, match="has 'a' already"):
        store.add([video('c'), video('a', 3)])
    assert ids(store) == ['a', 'b']
    store.add([video('c'), video('a', 3)], replace=True)
    row = store.snapshot().by_id['a']
    assert (row.moments, ids(store)) == (3, ['a', 'b', 'c'])
    assert row.number > number
    assert number not in store.snapshot().videos


def test_many_small_additions_become_few_segments_that_hold_the_same(tmp_path):
    store = library(tmp_path / 'lib')
    for number in range(40):
        store.add([video(f'v{number}', 4 + number % 3)])
    assert len(store.snapshot().segments) < 16
    assert store.verify() == []
    found = content(store)
    assert len(found) == 40
    for number in (0, 17, 39):
        wanted = video(f'v{number}', 4 + number % 3).embedding.embeddings
        for space in WIDTHS:
            assert np.abs(found[f'v{number}'][1][space] - wanted[space].numpy()).max() < 8e-3


def test_small_segments_take_the_rotation_of_a_larger_one_until_compact(tmp_path):
    store = library(tmp_path / 'lib', video('a', 60), video('b', 8))
    first, second = store.snapshot().segments
    assert np.array_equal(first.rotation['iou'], second.rotation['iou'])
    assert not second.own_rotation
    store.compact()
    (only,) = store.snapshot().segments
    assert only.own_rotation
    assert not np.array_equal(only.rotation['iou'], first.rotation['iou'])
    store.compact()  # nothing to gain
    assert store.snapshot().segments == [only]


def test_a_snapshot_stays_while_others_write_and_is_one_object_until_then(tmp_path):
    writer = library(tmp_path / 'lib', video('a'), video('b'))
    reader = FolderStore(tmp_path / 'lib', readonly=True)
    before = reader.snapshot()
    assert reader.snapshot() is before
    assert not reader.changed()
    vectors = before.segments[0].vectors('iou', slice(None))
    writer.remove(['a'])
    writer.compact()
    assert reader.changed()
    assert np.array_equal(before.segments[0].vectors('iou', slice(None)), vectors)
    assert (set(before.by_id), ids(reader)) == ({'a', 'b'}, ['b'])
    assert not reader.changed()


def test_an_empty_library_answers(tmp_path):
    store = library(tmp_path / 'lib')
    assert (store.snapshot().moments, store.snapshot().allowed()) == (0, None)
    assert (store.select('duration > 3'), store.select()) == (set(), set())
    assert (store.verify(), store.remove(['a'])) == ([], 0)
    store.compact()
    info = store.info()
    assert (info['videos'], info['bytes_per_moment'], info['spectrum']) == (0, None, {})
    store.add([])
    assert ids(store) == []


def test_a_video_without_moments_is_kept(tmp_path):
    store = library(tmp_path / 'lib', video('none', 0), video('a'))
    assert ids(store) == ['a', 'none']
    assert store.snapshot().by_id['none'].segment is None
    store.remove(['a'])
    store.compact()
    assert ids(store) == ['none']
    assert store.verify() == []


def test_settings_are_kept(tmp_path):
    store = library(tmp_path / 'lib')
    assert (store.get('power'), store.get('power', 4)) == (None, 4)
    store.set('power', {'p': 0.5, 'of': ['a', None]})
    assert FolderStore(tmp_path / 'lib').get('power') == {'p': 0.5, 'of': ['a', None]}


def test_info_tells_sizes_and_the_spectrum(tmp_path):
    store = library(tmp_path / 'lib', video('a', 30), video('b', 10))
    info = store.info()
    size = sum(path.stat().st_size for path in tmp_path.rglob('*') if path.is_file())
    assert (info['videos'], info['moments'], info['segments']) == (2, 40, 2)
    assert info['bytes'] == size
    assert info['bytes_per_moment'] == size / 40
    assert info['bytes_per_hour'] == pytest.approx(size / (80 / 3600))
    assert (info['dtype'], info['spaces']) == ('float16', WIDTHS)
    energy = {space: [] for space in WIDTHS}
    for segment in store.snapshot().segments:
        for space in WIDTHS:
            squares = segment.vectors(space, slice(None)).astype(np.float64) ** 2
            energy[space].append(segment.rows * squares[:, :16].sum() / squares.sum())
    for space in WIDTHS:
        assert info['spectrum'][space][16] == pytest.approx(sum(energy[space]) / 40, abs=1e-6)


def test_float32_libraries_keep_float32(tmp_path):
    added = video('a')
    store = library(tmp_path / 'lib', added, dtype='float32')
    store.compact()
    arrays = content(store)['a'][1]
    assert np.abs(arrays['iou'] - added.embedding.embeddings['iou'].numpy()).max() < 4e-6


STRANGE = [
    "it's",
    'a/b/../c',
    'two\nlines',
    'say "hi"',
    '日本語の動画',
    'мама',
    '%_',
    "'; --",
    ' ',
    '\t',
]


def test_ids_of_any_letters_are_stored_filtered_updated_and_removed(tmp_path):
    store = library(tmp_path / 'lib')
    store.add([video(name, folder=name) for name in STRANGE])
    assert ids(store) == sorted(STRANGE)
    snapshot = store.snapshot()
    for name in STRANGE:
        number = snapshot.by_id[name].number
        quoted = name.replace("'", "''")
        assert store.select(f"id = '{quoted}'") == store.select(None, [name]) == {number}
    store.add([video(name, 2) for name in STRANGE], replace=True)
    assert store.remove(STRANGE[1:]) == len(STRANGE) - 1
    assert ids(store) == STRANGE[:1]
    assert store.verify() == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(video_id=''), 'an id is a text'),
        (dict(video_id='a\udcff'), 'is no Unicode'),
        (dict(duration=float('nan')), 'its duration is nan seconds'),
        (dict(duration=0.0), 'its duration is 0.0 seconds'),
        (dict(meta={'x': float('nan')}), 'cannot be written as JSON'),
        (dict(meta={'x': object()}), 'cannot be written as JSON'),
    ],
)
def test_a_video_that_cannot_be_stored_is_named_and_none_of_the_call_is_added(
    tmp_path, changes, message
):
    store = library(tmp_path / 'lib')
    with pytest.raises(InputError, match=f'^video .*{message}'):
        store.add([video('good'), video(**changes)])
    assert (ids(store), files(store)) == ([], [])


def test_moments_that_cannot_be_stored_are_named_by_their_video(tmp_path):
    store, bad = library(tmp_path / 'lib'), video('bad')
    bad.embedding.embeddings['iou'][2] = torch.nan
    with pytest.raises(InputError, match=r"video 'bad': iou hold NaN or Inf, first in moment 2"):
        store.add([video('good'), bad])
    with pytest.raises(InputError, match="'a' is there twice"):
        store.add([video('a'), video('a')])
    assert ids(store) == []


def test_videos_of_other_spaces_are_refused(tmp_path):
    store = library(tmp_path / 'lib', video('a'))
    for widths in ({'contrastive': 20}, {'contrastive': 20, 'iou': 25}):
        with pytest.raises(InputError, match=r"video 'b' has the spaces .* encoded by one model"):
            store.add([video('b', widths=widths)])
    assert ids(store) == ['a']


def test_paths_that_are_no_unicode_are_stored_as_they_can_be_printed(tmp_path):
    store = library(tmp_path / 'lib', video('a', path='/films/\udcff.mp4'))
    assert store.snapshot().by_id['a'].path == '/films/\\xff.mp4'


def test_a_readonly_library_refuses_changes(tmp_path):
    library(tmp_path / 'lib', video('a'))
    store = FolderStore(tmp_path / 'lib', readonly=True)
    changes = (
        lambda: store.add([video('b')]),
        lambda: store.remove(['a']),
        store.compact,
        lambda: store.set('key', 1),
    )
    for change in changes:
        with pytest.raises(OutputError, match='was opened for reading'):
            change()
    assert ids(store) == ['a']


def test_what_is_no_library_is_said_to_be_none(tmp_path):
    with pytest.raises(MissingFileError, match='is no library: there is no such folder'):
        FolderStore(tmp_path / 'lib')
    (tmp_path / 'lib').mkdir()
    with pytest.raises(MissingFileError, match=r'is no library: it has no library\.sqlite'):
        FolderStore(tmp_path / 'lib')
    (tmp_path / 'lib' / 'library.sqlite').write_bytes(b'something else' * 99)
    with pytest.raises(InputError, match='file is not a database'):
        FolderStore(tmp_path / 'lib')
    (tmp_path / 'lib' / 'library.sqlite').write_bytes(b'')
    with pytest.raises(InputError, match='a database of something else'):
        FolderStore(tmp_path / 'lib')


def test_a_library_is_made_in_a_new_folder_only(tmp_path):
    library(tmp_path / 'lib')
    with pytest.raises(InputError, match='is a library already'):
        FolderStore.create(tmp_path / 'lib')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'film.mp4').touch()
    with pytest.raises(InputError, match=r"not empty \(it has 'film.mp4'\)"):
        FolderStore.create(tmp_path / 'mine')
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['film.mp4']


def test_a_library_of_a_newer_format_is_refused(tmp_path):
    store = library(tmp_path / 'lib')
    with sqlite3.connect(store.folder / 'library.sqlite') as connection:
        connection.execute('PRAGMA user_version = 2')
    connection.close()
    with pytest.raises(InputError, match=r'has format 2, .* reads up to 1: update mmn_plugin'):
        FolderStore(tmp_path / 'lib')


def test_a_library_can_be_moved_and_loses_no_empty_folder(tmp_path):
    library(tmp_path / 'lib', video('a')).close()
    library(tmp_path / 'empty').close()
    shutil.move(tmp_path / 'lib', tmp_path / 'a folder? #1 %41')
    (tmp_path / 'empty' / 'segments').rmdir()  # as some tools that copy files do
    for name in ('a folder? #1 %41', 'empty'):
        store = FolderStore(tmp_path / name)
        store.add([video('b')])
        assert 'b' in ids(store)
