"""Names and folders of outputs."""

import io
import json
import os

import numpy as np
import pytest
import torch

from mmn_plugin.files import OutputError, OutputFolder, UniqueNames, input_of, safe_name
from mmn_plugin.locks import FileInUseError, FileLock

NAMES = {
    'видео 1': 'видео 1',
    'v_ab-1.2': 'v_ab-1.2',
    'a/b\\c:d': 'a_b_c_d',
    'a\nb\0': 'a_b_',
    '..': '_',
    '': '_',
    '.hidden': 'hidden',
    'e\u0301': '\u00e9',
    'a\udcff': 'a_',
    '視' * 100: '視' * 60,
}


def test_an_id_in_any_script_is_a_files_name(tmp_path):
    for text, name in NAMES.items():
        assert safe_name(text) == name
        (tmp_path / f'{name}_timeline.png').touch()


def test_no_two_inputs_have_one_name_and_each_keeps_its_own():
    inputs = [('1', 'a/b'), ('2', 'a_b'), ('3', 'A_B'), ('4', 'a_b-2')]
    inputs += [('5', 'видео'), ('6', 'видео'), ('6', 'other')]
    names = UniqueNames()
    found = [names.of(*pair) for pair in inputs]
    assert found == ['a_b', 'a_b-2', 'A_B-3', 'a_b-2-2', 'видео', 'видео-2', 'other']
    assert [UniqueNames(names.names).of(*pair) for pair in reversed(inputs)] == found[::-1]


def test_an_input_is_known_by_its_file_or_its_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert input_of('a/../v.mp4') == input_of(tmp_path / 'v.mp4') == str(tmp_path / 'v.mp4')
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert input_of(values) == input_of(torch.from_numpy(values)) == input_of(values.copy())
    assert input_of(values) != input_of(values + 1)
    stream = io.BytesIO(b'abc')
    stream.read(2)
    assert input_of(stream) == input_of(io.BytesIO(b'abc')) != input_of(io.BytesIO(b'abd'))
    assert stream.read() == b'c'


def write(folder, name, text, source='s'):
    with folder.writing({name: source}) as path:
        (path / name).write_text(text)


def test_only_files_that_are_as_they_were_written_are_replaced(tmp_path):
    folder = OutputFolder(tmp_path / 'out')
    assert not folder.path.exists()
    for text in ('one', 'two'):
        write(folder, 'a.txt', text)
    for change in (
        lambda path: path.write_text('owt'),
        lambda path: path.write_text('three'),
        lambda path: (path.unlink(), path.mkdir()),
    ):
        change(folder.path / 'a.txt')
        with pytest.raises(OutputError, match=r'a\.txt has been changed since it was written'):
            write(OutputFolder(folder.path), 'a.txt', 'mine')
    (folder.path / 'a.txt').rmdir()
    write(OutputFolder(folder.path), 'a.txt', 'again')
    with pytest.raises(OutputError, match=r'a\.txt was made of something else \(s\)'):
        write(folder, 'a.txt', 'other', 'another')


def test_all_that_is_in_the_way_is_counted_and_the_first_is_named(tmp_path):
    for name in ('b', 'c'):
        (tmp_path / name).touch()
    (tmp_path / 'd').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(OutputError, match=r'b is there and was not .*, and 2 more like it: '):
        OutputFolder(tmp_path).claim(dict.fromkeys('abcd'))


def test_what_a_kill_leaves_is_replaced_and_a_failure_lists_nothing(tmp_path):
    OutputFolder(tmp_path).begin({'a.txt': 's'})
    (tmp_path / 'a.txt').write_text('half')  # and then the process is gone
    write(OutputFolder(tmp_path), 'a.txt', 'whole')
    with pytest.raises(ZeroDivisionError), OutputFolder(tmp_path).writing({'b.txt': 's'}):
        raise ZeroDivisionError
    (tmp_path / 'b.txt').write_text('mine')
    with pytest.raises(OutputError, match='was not written by this program'):
        OutputFolder(tmp_path).claim({'b.txt': 's'})


def test_processes_that_write_at_the_same_time_lose_no_entry(tmp_path):
    children = []
    for number in range(4):
        children.append(os.fork())
        if not children[-1]:
            code = 1
            try:
                folder = OutputFolder(tmp_path)
                for i in range(5):
                    (name,) = folder.names_of([(f'{number} {i}', 'v')])
                    write(folder, f'{name}.txt', 'x')
                code = 0
            finally:
                os._exit(code)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    names = {'v.txt', *(f'v-{i}.txt' for i in range(2, 21))}
    assert json.loads((tmp_path / '.mmn_outputs.json').read_text())['files'].keys() == names
    assert {path.name for path in tmp_path.iterdir()} == {*names, '.mmn_outputs.json'}


@pytest.mark.parametrize(
    'content', ['', '[]', '{"names": 1, "files": {}}', '{"names": {}, "files": {"a": 1}}']
)
def test_a_list_that_cannot_be_read_is_named_and_left_alone(tmp_path, content):
    (tmp_path / '.mmn_outputs.json').write_text(content)
    with pytest.raises(OutputError, match=r'\.mmn_outputs\.json should list what was written'):
        OutputFolder(tmp_path)
    assert (tmp_path / '.mmn_outputs.json').read_text() == content


def test_a_lock_is_held_by_one_and_its_file_goes(tmp_path):
    with FileLock(tmp_path / 'f') as lock:
        with pytest.raises(FileInUseError, match=f'in use by process {os.getpid()} on'):
            FileLock(tmp_path / 'f', patience=0).acquire()
        assert [path.name for path in tmp_path.iterdir()] == ['f.lock']
    lock.release()
    assert not list(tmp_path.iterdir())
    (tmp_path / 'f.lock').write_text('left by a kill')
    with FileLock(tmp_path / 'f', patience=0):
        pass
    assert not list(tmp_path.iterdir())
