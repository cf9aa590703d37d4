"""Whose video is where, and when it is gone."""

import os
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest
from helpers.counted_videos import lie_avi
from helpers.tiny_grounder import write_scene

from mmn_plugin.webui import Limits, PageError, SessionStore


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp('scene'))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    store = SessionStore(Limits(), upload_seconds=0.0)
    yield store
    store.close_all()
    assert not list(tmp_path.iterdir())  # whatever a test did, nothing is left


@pytest.fixture
def upload(store, video):
    """Put a file where Gradio would."""

    def put(content=None, name='my scene.mp4'):
        folder = store.uploads / 'hash'
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(video.read_bytes() if content is None else content)
        return folder / name

    return put


def files(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def test_an_upload_is_kept_for_its_visitor_alone(store, upload, video):
    session = store.open_upload('ann', upload(), 'my scene.mp4')
    assert (session.name, session.duration) == ('my scene.mp4', 24.0)
    assert session.path.read_bytes() == video.read_bytes()
    assert session.path.suffix == '.mp4'
    assert store.get('ann') is session
    with pytest.raises(PageError, match='Choose a video first'):
        store.get('bob')


def test_nothing_is_left_when_the_visitor_leaves(store, upload):
    store.open_upload('ann', upload(), 'my scene.mp4')
    store.close('ann')
    store.sweep()
    assert not files(store.folder)
    assert not list(store.videos.iterdir())
    assert not list(store.uploads.iterdir())


def test_another_visitors_same_file_stays(store, upload, video):
    path = upload()
    ann, bob = (store.open_upload(user, path, 'my scene.mp4') for user in ('ann', 'bob'))
    store.sweep()  # gone under the name they share
    store.close('ann')
    assert not ann.path.exists()
    assert bob.path.read_bytes() == video.read_bytes()


def test_an_upload_is_not_swept_before_it_can_be_opened(store, upload):
    store.upload_seconds = 60.0
    path = upload()
    store.sweep()
    assert path.exists()


def test_a_new_video_takes_the_place_of_the_old_one(store, upload, video):
    old = store.open_upload('ann', upload(), 'a.mp4')
    new = store.open_upload('ann', upload(), 'b.mp4')
    assert not old.path.exists()
    example = store.open_example('ann', video, 'Shapes 1', {})
    assert not new.path.exists()
    store.close('ann')
    assert video.exists()  # an example is everybody's
    assert example.encoded is None


@pytest.mark.parametrize('content', [b'', b'no video at all', b'\0' * 5000])
def test_a_bad_file_is_refused_and_not_kept(store, upload, content):
    session = store.open_upload('ann', upload(), 'good.mp4')
    with pytest.raises(PageError, match=r'“evil\.mp4” cannot be read as a video'):
        store.open_upload('ann', upload(content, 'x.mp4'), '../../evil.mp4')
    assert list(store.videos.iterdir()) == [session.path.parent]
    assert store.get('ann') is session  # the video before stays


def test_a_video_that_is_too_long_is_refused_and_not_kept(store, upload):
    store.limits = Limits(seconds=20)
    with pytest.raises(PageError, match='24 s long; at most 20 s'):
        store.open_upload('ann', upload(), 'a.mp4')
    assert not list(store.videos.iterdir())


def test_the_length_is_counted_and_not_believed(store, upload, tmp_path_factory):
    path = tmp_path_factory.mktemp('lies') / 'short.avi'
    lie_avi(path, 10, codec='mpeg4')
    store.limits = Limits(seconds=7)
    with pytest.raises(PageError, match='8 s long; at most 7 s'):
        store.open_upload('ann', upload(path.read_bytes(), 'short.avi'), 'short.avi')
    store.limits = Limits()
    session = store.open_upload('ann', upload(path.read_bytes(), 'short.avi'), 'short.avi')
    assert session.duration == 8.0


@pytest.mark.parametrize(
    ('limits', 'message'),
    [
        (dict(pixels=32 * 32 - 1), 'its pictures have 32 x 32 pixels; at most 1,023 pixels'),
        (dict(work_seconds=1e-9), 'it takes longer than 1e-09 s to be read'),
    ],
)
def test_a_video_that_is_too_much_is_refused_and_not_kept(store, upload, limits, message):
    store.limits = Limits(**limits)
    with pytest.raises(PageError, match=rf'“a\.mp4” is too much for this page: {message}'):
        store.open_upload('ann', upload(), 'a.mp4')
    assert not list(store.videos.iterdir())


def test_an_idle_visitors_video_is_deleted(store, upload, monkeypatch):
    store.open_upload('ann', upload(), 'a.mp4')
    store.open_upload('bob', upload(), 'b.mp4')
    now = time.monotonic() + 2 * store.limits.idle_seconds
    monkeypatch.setattr(
        'mmn_plugin.webui.sessions.time',
        SimpleNamespace(monotonic=lambda: now, time=time.time),
    )
    store.get('bob')  # asks about it
    store.sweep()
    store.get('bob')
    with pytest.raises(PageError, match='Choose a video first'):
        store.get('ann')
    assert len(files(store.videos)) == 1


def test_more_visitors_than_allowed_are_told_so(store, upload):
    store.limits = Limits(visitors=1)
    store.open_upload('ann', upload(), 'a.mp4')
    with pytest.raises(PageError, match='Too many people'):
        store.open_upload('bob', upload(), 'b.mp4')
    store.open_upload('ann', upload(), 'c.mp4')  # in place of the first


def test_other_users_of_the_machine_cannot_look_in(store, upload):
    session = store.open_upload('ann', upload(), 'a.mp4')
    assert store.folder.stat().st_mode & 0o077 == 0
    assert session.path.parent.stat().st_mode & 0o077 == 0
    assert len(session.path.parent.name) > 20


def test_remains_of_a_killed_page_go_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    ended = subprocess.Popen([sys.executable, '-c', ''])
    ended.wait()
    (tmp_path / f'mmn_webui_{ended.pid}_x').mkdir()
    (tmp_path / f'mmn_webui_{ended.pid}_x' / 'video.mp4').write_bytes(b'1')
    (tmp_path / f'mmn_webui_{os.getpid()}_x').mkdir()  # another page of this process
    (tmp_path / 'mmn_webui_notes').mkdir()
    with SessionStore(Limits()) as store:
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {f'mmn_webui_{os.getpid()}_x', 'mmn_webui_notes', store.folder.name}
    assert not store.folder.exists()
