"""Files are there whole, or as they were before."""

import errno
import os

import pytest

from mmn_plugin.engine import CheckpointWriteError, write_atomically


def test_the_content_replaces_what_was_there(tmp_path):
    path = tmp_path / 'new folder' / 'x.pth'
    for content in (b'first', b'second'):
        write_atomically(content, path)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ['x.pth']


@pytest.mark.parametrize(
    ('number', 'advice'),
    [
        (errno.ENOSPC, 'No space left on device; .* MB are free.*free some space'),
        (errno.EDQUOT, 'quota'),
        (errno.EROFS, 'Read-only file system.*--work-dir'),
        (errno.EIO, 'look at the disk'),
    ],
)
def test_a_failure_leaves_the_earlier_file_and_says_what_to_do(
    tmp_path, monkeypatch, number, advice
):
    path = tmp_path / 'x.pth'
    write_atomically(b'earlier', path)

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(CheckpointWriteError, match=rf'x\.pth .*cannot be written: .*{advice}'):
        write_atomically(b'later', path)
    assert path.read_bytes() == b'earlier'
    assert os.listdir(tmp_path) == ['x.pth']


def test_the_name_is_given_after_the_content_is_on_the_disk(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (done.append('fsync'), fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda *names: (done.append('replace'), replace(*names)))
    write_atomically(b'content', tmp_path / 'x.pth')
    assert done == ['fsync', 'replace', 'fsync']
