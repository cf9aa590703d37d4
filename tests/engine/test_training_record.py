"""Who may train in a work folder."""

import json
import os
import signal
import socket

import pytest
from helpers.processes import end, in_another_process, train_in
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_run import tiny_run
from mmengine.hooks import Hook

from mmn_plugin import locks
from mmn_plugin.engine import TrainingRecord, WorkFolderInUseError

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


def refused_elsewhere(folder):
    """Make sure that another process may not train there."""

    def ask():
        with pytest.raises(WorkFolderInUseError):
            TrainingRecord(folder).require_unused()

    with in_another_process(ask):
        pass


def test_a_second_training_is_refused_before_it_writes_with_the_firsts_process_and_machine(
    tmp_path,
):
    work, record = tmp_path / 'work', TrainingRecord(tmp_path / 'work')
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', 2, 2))
    with in_another_process(lambda: train_in(work)) as process:
        place = f'{work}/training.json is in use by process {process} on {socket.gethostname()}'
        for ask in (
            record.require_unused,
            record.acquire,
            lambda: tiny_run(work, dict(type='SafeCheckpointHook')),
        ):
            with pytest.raises(WorkFolderInUseError, match=f'{place} since 20.*--work-dir'):
                ask()
        assert not list(work.glob('*.pth'))
        output = output_of('train.py {} --work-dir {}', config, work, code=1)
        (line,) = output.splitlines()
        assert place in line
        assert record.read()['run'] == 'a'  # untouched
        end(process)
        record.require_unused()  # a killed training holds nothing
        assert record.acquire() is None
        assert record.read()['run'] == 'a'  # whose checkpoints these are
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
            record = TrainingRecord(tmp_path)
            record.require_unused()
            assert record.acquire() is None
            record.release()
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
    refused_elsewhere(tmp_path / 'work')
    record.release()
    with in_another_process(lambda: train_in('work', 'other')):
        assert TrainingRecord('work').read()['run'] == 'other'


def test_a_training_holds_its_folder_until_it_is_over(tmp_path):
    asked, epochs = Hook(), []
    asked.after_train_epoch = lambda runner: epochs.append(refused_elsewhere(tmp_path))
    tiny_run(tmp_path, dict(type='SafeCheckpointHook'), epochs=1, hooks=[asked])
    assert len(epochs) == 1  # it was asked
    with in_another_process(TrainingRecord(tmp_path).require_unused):
        pass


def test_a_file_system_without_locks_is_said_and_trains(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(locks.fcntl, 'flock', refuse)
    record = TrainingRecord(tmp_path)
    assert record.acquire() == 'No locks available'
    record.write('a')
    assert json.loads((tmp_path / 'training.json').read_text())['run'] == 'a'
    record.release()
    (tmp_path / 'training.json').write_bytes(b'\xff[')
    assert record.read() == {}  # a damaged record is none
