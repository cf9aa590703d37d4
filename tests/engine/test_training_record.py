"""Who may train in a work folder."""

import json
import os
import signal
import socket

import pytest
from helpers.processes import end, in_another_process, train_in
from helpers.run_tool import run_tool
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_run import tiny_run
from mmengine.hooks import Hook

from mmn_plugin import locks
from mmn_plugin.engine import TrainingRecord, WorkFolderInUseError, checkpoint_files

FILES = ['training.json', 'training.json.lock']
pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


def forget_locks():
    """As in a new process, which would have none."""
    checkpoint_files._locks.clear()


@pytest.mark.parametrize('ask', ['require_unused', 'acquire'])
def test_a_second_training_is_refused_with_the_first_ones_process_and_machine(tmp_path, ask):
    with in_another_process(lambda: train_in(tmp_path)) as process:
        with pytest.raises(
            WorkFolderInUseError,
            match=(
                f'{tmp_path}/training.json is in use by process {process} on '
                f'{socket.gethostname()} since 20.*--work-dir'
            ),
        ):
            getattr(TrainingRecord(tmp_path), ask)()
        assert TrainingRecord(tmp_path).read()['run'] == 'a'  # untouched


def test_a_killed_training_holds_nothing(tmp_path):
    with in_another_process(lambda: train_in(tmp_path, 'killed')) as process:
        end(process)
        TrainingRecord(tmp_path).require_unused()
        record = TrainingRecord(tmp_path)
        assert record.acquire() is None
        assert record.read()['run'] == 'killed'  # whose checkpoints these are
        record.release()


def test_processes_that_a_killed_training_has_started_hold_nothing(tmp_path):
    said, say = os.pipe()

    def train_with_worker():
        train_in(tmp_path)
        if not os.fork():
            os.write(say, str(os.getpid()).encode())
            signal.pause()

    with in_another_process(train_with_worker) as process:
        worker = int(os.read(said, 20))
        end(process)
        try:
            os.kill(worker, 0)  # it is still there
            TrainingRecord(tmp_path).require_unused()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_what_asks_in_the_training_process_takes_no_lock_away(tmp_path, monkeypatch):
    (tmp_path / 'work').mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to('work')
    record = train_in('work', 'mine')
    for folder in ('work', tmp_path / 'work', 'link'):
        TrainingRecord(folder).require_unused()
        assert TrainingRecord(folder).acquire() is None
        assert TrainingRecord(folder).read()['run'] == 'mine'

    def is_refused():
        other = TrainingRecord(tmp_path / 'work')
        forget_locks()
        with pytest.raises(WorkFolderInUseError):
            other.require_unused()

    with in_another_process(is_refused):
        pass
    record.release()
    with in_another_process(lambda: train_in('work', 'other')):
        assert TrainingRecord('work').read()['run'] == 'other'


def test_a_file_system_without_locks_is_said_and_trains(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(locks.fcntl, 'flock', refuse)
    record = TrainingRecord(tmp_path)
    assert record.acquire() == 'No locks available'
    record.write('a')
    assert json.loads((tmp_path / 'training.json').read_text())['run'] == 'a'
    record.release()


def test_a_damaged_record_is_none(tmp_path):
    (tmp_path / 'training.json').write_bytes(b'\xff[')
    assert TrainingRecord(tmp_path).read() == {}


def test_a_second_run_of_the_command_leaves_the_folder_as_it_is(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2))
    with in_another_process(lambda: train_in(tmp_path / 'work')) as process:
        code, output = run_tool('train.py', config, '--work-dir', tmp_path / 'work')
    assert code == 1
    (line,) = output.splitlines()
    assert f'is in use by process {process} on' in line
    assert sorted(path.name for path in (tmp_path / 'work').iterdir()) == FILES


def test_a_run_that_comes_between_is_refused_before_it_trains(tmp_path):
    with (
        in_another_process(lambda: train_in(tmp_path)),
        pytest.raises(WorkFolderInUseError, match='another training is in the work folder'),
    ):
        tiny_run(tmp_path, dict(type='SafeCheckpointHook'))
    assert not list(tmp_path.glob('*.pth'))


def test_a_training_holds_its_folder_until_it_is_over(tmp_path):
    class AskHook(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            with in_another_process(ask):
                pass

    def ask():
        forget_locks()
        with pytest.raises(WorkFolderInUseError):
            TrainingRecord(tmp_path).require_unused()

    tiny_run(tmp_path, dict(type='SafeCheckpointHook'), epochs=1, hooks=[AskHook()])
    assert tmp_path / 'training.json' not in checkpoint_files._locks
    with in_another_process(TrainingRecord(tmp_path).require_unused):
        pass
