import time

import pytest
from helpers.library_input import ATTACKS
from helpers.tiny_library import content, library, memory_folder, video

from mmn_plugin.errors import InputError
from mmn_plugin.library import FolderStore


@pytest.fixture(scope='module')
def store():
    with memory_folder() as folder:
        yield some_videos(folder / 'lib')


def some_videos(folder):
    found = library(folder)
    found.add(
        [
            video('a', 3, folder='kitchen', duration=50.0, meta={'camera': 2, 'by': "O'Hara"}),
            video('b', 5, folder='kitchen', duration=900.0, modified=1.6e9),
            video('select', 4, folder="the select; it's", modified=None, path='/x/%_a.mp4'),
            video('Straße', 2, folder='', duration=700.0),
        ]
    )
    return found


def selected(store, where=None, video_ids=None):
    numbers = store.select(where, video_ids)
    return {row.video_id for number, row in store.snapshot().videos.items() if number in numbers}


@pytest.mark.parametrize(
    ('where', 'wanted'),
    [
        ("folder = 'kitchen' and duration < 600", {'a'}),
        ('duration between 600 and 800 or moments = 5', {'b', 'Straße'}),
        ("modified >= '2025-01-01'", {'a', 'Straße'}),
        ("modified < '2020-09-13T12:26:41'", {'b'}),
        ('modified is null', {'select'}),
        ("meta ->> 'camera' = 2", {'a'}),
        ("json_extract(meta, '$.by') = 'O''Hara'", {'a'}),
        ("id in ('b', 'select', 'c')", {'b', 'select'}),
        ("folder like '%select; it''s'", {'select'}),
        ("lower(id) glob 'stra*'", {'Straße'}),
        ("path like '/x/\\%\\_%' escape '\\'", {'select'}),
        ('not (moments > 2) -- a remark', {'Straße'}),
        ('1', {'a', 'b', 'select', 'Straße'}),
        ('0', set()),
        ('null', set()),
    ],
)
def test_an_expression_over_the_columns_selects_videos(store, where, wanted):
    assert selected(store, where) == wanted


def test_ids_and_an_expression_are_both_kept_to(store):
    assert selected(store, video_ids=['b', 'a', 'a']) == {'a', 'b'}
    assert selected(store, 'duration > 60', ['b', 'a']) == {'b'}
    assert selected(store, video_ids=[]) == set()
    with pytest.raises(InputError, match=r"has no 'c', 'd', 'e' and 1 more"):
        store.select('1', ['c', 'a', 'd', 'e', 'f'])


def test_the_selected_rows_are_those_of_the_videos(store):
    snapshot = store.snapshot()
    (rows,) = snapshot.allowed(store.select(video_ids=['b']))
    assert rows.tolist() == [False] * 3 + [True] * 5 + [False] * 6
    assert not snapshot.allowed({10**6, -1})[0].any()


@pytest.mark.parametrize('where', ATTACKS, ids=range(len(ATTACKS)))
def test_what_is_no_expression_over_the_columns_is_refused_and_changes_nothing(store, where):
    before = content(store)
    with pytest.raises(InputError, match=r'the filter .* cannot be used: .*columns id, path, fold'):
        store.select(where)
    assert selected(store) == set(before)
    reopened = FolderStore(store.folder, readonly=True)
    assert (set(content(reopened)), reopened.verify()) == (set(before), [])


@pytest.mark.parametrize('where', ['size > 3', 'videos.name = 1', 'other.id = 2', 'x'])
def test_an_unknown_column_is_one_error_that_lists_those_there_are(store, where):
    with pytest.raises(
        InputError,
        match=r'no such column: .* the columns id, path, folder, duration, modified, moments, meta',
    ):
        store.select(where)


def test_an_unknown_function_is_one_error_that_lists_those_there_are(store):
    with pytest.raises(InputError, match=r'function: soundex\..* functions: abs, coalesce'):
        store.select("soundex(id) = 'a'")


def test_an_expression_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    store = library(tmp_path / 'lib')
    store.add([video(f'v{number}', 1) for number in range(300)])
    monkeypatch.setattr('mmn_plugin.library.database._FILTER_SECONDS', 0.02)
    slow = ' and '.join(["lower(upper(path) || path) like '%a%b%c%d%e%'"] * 200)
    began = time.monotonic()
    with pytest.raises(InputError, match=r'it takes longer than 0\.02 s'):
        store.select(f'not ({slow}) and 0 or {slow.replace("and", "or")}')
    assert time.monotonic() - began < 10
