"""Whose video is where, when it is gone, and what a visitor may ask for."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace
from unittest import mock

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


def test_an_upload_is_kept_for_its_visitor_alone_until_the_visitor_leaves(store, upload, video):
    session = store.open_upload('ann', upload(), 'my scene.mp4')
    assert (session.name, session.duration) == ('my scene.mp4', 24.0)
    assert session.path.read_bytes() == video.read_bytes()
    assert session.path.suffix == '.mp4'
    assert store.get('ann') is session
    with pytest.raises(PageError, match='Choose a video first'):
        store.get('bob')
    assert store.folder.stat().st_mode & 0o077 == 0  # no other user of the machine looks in
    assert session.path.parent.stat().st_mode & 0o077 == 0
    assert len(session.path.parent.name) > 20
    store.close('ann')
    store.sweep()
    assert not files(store.folder)
    assert not [*store.videos.iterdir(), *store.uploads.iterdir()]


def test_an_upload_goes_once_it_is_opened_and_another_visitors_same_file_stays(
    store, upload, video
):
    store.upload_seconds, path = 60.0, upload()
    store.sweep()
    assert path.exists()
    ann, bob = (store.open_upload(user, path, 'my scene.mp4') for user in ('ann', 'bob'))
    store.upload_seconds = 0.0
    store.sweep()  # gone under the name they share
    assert not path.exists()
    store.close('ann')
    assert not ann.path.exists()
    assert bob.path.read_bytes() == video.read_bytes()


def test_a_new_video_takes_the_place_of_the_old_one(store, upload, video):
    old = store.open_upload('ann', upload(), 'a.mp4')
    new = store.open_upload('ann', upload(), 'b.mp4')
    assert not old.path.exists()
    example = store.open_example('ann', video, 'Shapes 1', {})
    assert not new.path.exists()
    store.close('ann')
    assert video.exists()  # an example is everybody's
    assert example.encoded is None


@pytest.mark.parametrize(
    ('content', 'limits', 'message'),
    [
        (b'', {}, 'cannot be read as a video'),
        (b'no video at all', {}, 'cannot be read as a video'),
        (b'\0' * 5000, {}, 'cannot be read as a video'),
        (None, dict(seconds=20), '24 s long; at most 20 s'),
        (None, dict(pixels=32 * 32 - 1), 'too much for this page: its pictures have 32 x 32 pix'),
        (None, dict(work_seconds=1e-9), 'is too much for this page: it takes longer than 1e-09 s'),
    ],
)
def test_a_file_that_is_not_taken_is_not_kept(store, upload, content, limits, message):
    session = store.open_upload('ann', upload(), 'good.mp4')
    store.limits = Limits(**limits)
    with pytest.raises(PageError, match=message) as error:
        store.open_upload('ann', upload(content, 'x.mp4'), '../../evil.mp4')
    assert '“evil.mp4”' in str(error.value) or 'long' in message
    assert list(store.videos.iterdir()) == [session.path.parent]
    assert store.get('ann') is session  # the video before stays


def test_a_full_disk_and_a_broken_example_are_told_as_what_they_are(
    store, upload, monkeypatch, tmp_path_factory
):
    broken = tmp_path_factory.mktemp('example') / 'broken.mp4'
    broken.write_bytes(b'no video')
    with pytest.raises(PageError, match='“Shapes 1” cannot be read as a video'):
        store.open_example('ann', broken, 'Shapes 1', {})
    full = mock.Mock(side_effect=OSError(errno.ENOSPC, 'No space left on device'))
    monkeypatch.setattr('os.link', full)
    monkeypatch.setattr('shutil.copyfile', full)
    with pytest.raises(PageError, match=r'“a\.mp4” could not be stored here: No space left'):
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


def test_sentences_are_lines_and_each_is_asked_once():
    text = '\n  a  red box \n\na red box\nthe door\n'
    assert Limits().split_sentences(text) == ['a red box', 'the door']
    assert Limits().split_sentences('x' * 300)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'Type a sentence'),
        ('  \n\t\n', 'Type a sentence'),
        ('door\n' + 'a red box ' * 1000 + '.', r'“a red box.{1,40}…” has 10,001 char.* most 300'),
        ('\n'.join('abcdefghi'), 'These are 9 sentences; ask for at most 8'),
    ],
)
def test_questions_beyond_the_limits_are_refused(text, message):
    with pytest.raises(PageError, match=message):
        Limits().split_sentences(text)


@pytest.mark.parametrize(
    ('size', 'seconds', 'message'),
    [
        (3 * 2**20, 10, '3.0 MB; at most 2 MB'),
        (1e6, 130, '2 min 10 s long; at most 2 min'),
        (1e6, 3600, '60 min long; at most 2 min'),
    ],
)
def test_large_and_long_videos_are_refused(size, seconds, message):
    limits = Limits(megabytes=2, seconds=120)
    with pytest.raises(PageError, match=message):
        limits.check_video(size, seconds)
    limits.check_video(2 * 2**20, 120)
    with pytest.raises(ValueError, match='the limit seconds=0 must be above 0'):
        Limits(seconds=0)
