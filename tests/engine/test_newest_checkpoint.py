"""What a run resumes from, and what it does not."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from mmn_plugin.engine import damage, newest_checkpoint


@pytest.fixture
def folder(tmp_path):
    """Three complete checkpoints and a best one; `last_checkpoint` names the third."""
    for epoch in (1, 2, 3):
        save(tmp_path / f'epoch_{epoch}.pth', epoch)
    save(tmp_path / 'best_R1_epoch_2.pth', 2)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_3.pth'))
    return tmp_path


def save(path, epoch, age=100):
    torch.save(
        dict(
            meta=dict(epoch=epoch, iter=10 * epoch),
            message_hub={},
            optimizer={},
            state_dict=dict(weight=torch.randn(200, 50)),
        ),
        path,
    )
    os.utime(path, ns=(0, (epoch - age) * 10**9 + 10**18))


def find(folder):
    said = []
    found = newest_checkpoint(folder, said.append)
    return found and found.name, ' / '.join(said)


def truncate(path, part=0.5):
    status = path.stat()
    os.truncate(path, int(status.st_size * part))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_named_one_is_taken(folder):
    assert find(folder) == ('epoch_3.pth', '')


@pytest.mark.parametrize('part', [0, 0.5, 0.99])
def test_a_truncated_one_is_named_and_passed_over(folder, part):
    truncate(folder / 'epoch_3.pth', part)
    found, said = find(folder)
    assert found == 'epoch_2.pth'
    assert 'epoch_3.pth is passed over: it is incomplete' in said


def test_a_damaged_one_is_named_and_passed_over(folder):
    content = bytearray((folder / 'epoch_3.pth').read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)  # as after a power cut
    (folder / 'epoch_3.pth').write_bytes(content)
    found, said = find(folder)
    assert found == 'epoch_2.pth'
    assert 'epoch_3.pth is passed over: it is damaged' in said
    assert 'checksum' in said


def test_several_may_be_passed_over(folder):
    for epoch in (2, 3):
        truncate(folder / f'epoch_{epoch}.pth')
    found, said = find(folder)
    assert found == 'epoch_1.pth'
    assert said.count('passed over') == 2


def test_where_none_is_complete_none_is_taken(folder):
    for epoch in (1, 2, 3):
        truncate(folder / f'epoch_{epoch}.pth')
    assert find(folder)[0] is None
    assert find(Path(folder / 'absent')) == (None, '')


def test_one_written_after_the_named_one_is_taken(folder):
    # a run ended between the checkpoint and last_checkpoint
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    assert find(folder)[0] == 'epoch_3.pth'


def test_the_checkpoints_of_an_earlier_and_longer_run_are_not(folder):
    save(folder / 'epoch_9.pth', 9, age=200)
    assert find(folder)[0] == 'epoch_3.pth'


def test_the_order_of_a_copied_folder_does_not_matter(folder):
    for epoch in (3, 1, 2):
        os.utime(folder / f'epoch_{epoch}.pth', ns=(0, 10**18 + epoch % 3))
    assert find(folder)[0] == 'epoch_3.pth'


def test_a_moved_work_folder_is_found(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'work'
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    assert find(moved) == ('epoch_3.pth', '')


def test_a_name_without_a_file_is_said(folder):
    (folder / 'epoch_3.pth').unlink()
    found, said = find(folder)
    assert found == 'epoch_2.pth'
    assert 'epoch_3.pth, which is not there' in said


def test_weights_alone_are_nothing_to_resume_from(folder):
    torch.save(dict(state_dict={}), folder / 'epoch_3.pth')
    assert damage(folder / 'epoch_3.pth') == (
        'it holds no meta and no message_hub and no optimizer to resume from'
    )
    assert find(folder)[0] == 'epoch_2.pth'
