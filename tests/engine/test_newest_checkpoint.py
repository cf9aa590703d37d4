"""What a run resumes from, and how it is written."""

import errno
import os
import shutil

import pytest
import torch

from mmn_plugin.engine.checkpoint_files import (
    CheckpointWriteError,
    damage,
    newest_checkpoint,
    write_durably,
)


@pytest.fixture
def folder(tmp_path):
    """Three complete checkpoints and a best one."""
    for epoch in (1, 2, 3):
        save(tmp_path / f'epoch_{epoch}.pth', epoch)
    save(tmp_path / 'best_R1_epoch_4.pth', 4)
    return tmp_path


def save(path, epoch):
    content = dict(
        meta=dict(epoch=epoch, iter=10 * epoch),
        message_hub={},
        optimizer={},
        state_dict=dict(weight=torch.randn(200, 50)),
    )
    torch.save(content, path)


def find(folder):
    said = []
    found = newest_checkpoint(folder, said.append)
    return found and found.name, ' / '.join(said)


@pytest.mark.parametrize('part', [0, 0.5, 0.99])
def test_a_truncated_one_is_named_and_passed_over(folder, part):
    for epoch, left in ((3, 2), (2, 1), (1, None)):
        path = folder / f'epoch_{epoch}.pth'
        os.truncate(path, int(path.stat().st_size * part))
        found, said = find(folder)
        assert found == (left and f'epoch_{left}.pth')
        assert f'{path} is passed over: it is incomplete' in said
    assert find(folder / 'absent') == (None, '')


def test_a_damaged_one_is_named_and_passed_over(folder):
    content = bytearray((folder / 'epoch_3.pth').read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)  # as after a power cut
    (folder / 'epoch_3.pth').write_bytes(content)
    found, said = find(folder)
    assert found == 'epoch_2.pth'
    assert 'epoch_3.pth is passed over: it is damaged' in said
    assert 'checksum' in said


def test_the_one_with_most_iterations_is_taken_whatever_order_a_copy_left_them_in(folder):
    for epoch in (1, 2, 3):
        os.utime(folder / f'epoch_{epoch}.pth', ns=(0, 10**18 - epoch))
    assert find(folder) == ('epoch_3.pth', '')
    (folder / 'epoch_3.pth').unlink()
    assert find(folder) == ('epoch_2.pth', '')


def test_one_in_another_folder_is_found_by_its_name_unless_it_was_copied(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp('work')
    (work / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
    assert newest_checkpoint(work, pytest.fail) == folder / 'epoch_3.pth'
    shutil.copytree(folder, work, dirs_exist_ok=True)
    assert newest_checkpoint(work, pytest.fail) == work / 'epoch_3.pth'
    shutil.rmtree(folder)
    assert newest_checkpoint(work, pytest.fail) == work / 'epoch_3.pth'


def test_weights_alone_are_nothing_to_resume_from(folder):
    torch.save(dict(state_dict={}), folder / 'epoch_3.pth')
    assert damage(folder / 'epoch_3.pth') == (
        'it holds no meta and no message_hub and no optimizer to resume from'
    )
    assert find(folder)[0] == 'epoch_2.pth'


def test_a_file_gets_its_name_after_its_content_is_on_the_disk(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (done.append('fsync'), fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda *names: (done.append('replace'), replace(*names)))
    path = tmp_path / 'new folder' / 'x.pth'
    for content in (b'first', b'second'):
        write_durably(content, path)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ['x.pth']
    assert done == ['fsync', 'replace', 'fsync'] * 2


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS])
def test_a_failed_write_leaves_the_earlier_file_and_says_what_to_do(tmp_path, monkeypatch, number):
    path = tmp_path / 'x.pth'
    write_durably(b'earlier', path)

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fail)
    text = rf'x\.pth .*cannot be written: {os.strerror(number)}; .* MB are free.*--work-dir'
    with pytest.raises(CheckpointWriteError, match=text):
        write_durably(b'later', path)
    assert path.read_bytes() == b'earlier'
    assert os.listdir(tmp_path) == ['x.pth']
