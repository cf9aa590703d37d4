"""Ranks that die, disks that are full, several machines: through the scripts that users call."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from helpers.processes import started
from helpers.tiny_corpus import write_config, write_corpus
from helpers.zygote import Zygote

from mmn_plugin.engine.checkpoint_files import damage

ROOT = Path(__file__).resolve().parents[2]
FAULTS = """
custom_imports = dict(imports=['mmn_plugin', 'helpers.faults'])
custom_hooks = [dict(type='FaultHook')]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('machines')
    base = write_config(folder / 'tiny.py', write_corpus(folder / 'corpus'))
    path = folder / 'faults.py'
    path.write_text(f"_base_ = '{base.name}'\n{FAULTS}")
    return path


def start(*given, **environment):
    """``dist_train.sh`` in a session of its own."""
    command = 'bash', ROOT / 'tools/dist_train.sh', *given
    return started(command, ROOT / 'tests', start_new_session=True, **environment)


def output_of(job, mark):
    """What a job prints; it is ended where it goes on too long.

    That is 60 s after a line with `mark`, or where that does not come in 300 s, which allow for a
    busy machine.
    """
    lines, timer = [], threading.Timer(300, os.killpg, (job.pid, signal.SIGKILL))
    timer.start()
    for line in job.stdout:
        lines.append(line)
        if mark in line:
            timer.cancel()
            timer = threading.Timer(60, os.killpg, (job.pid, signal.SIGKILL))
            timer.start()
    job.wait()
    timer.cancel()
    output = ''.join(lines)
    assert job.returncode != -signal.SIGKILL, f'the job had to be ended:\n{output[-3000:]}'
    return output


def test_a_dying_rank_ends_the_job_with_its_error_first(config, tmp_path):
    given = (config, 2, '--work-dir', tmp_path / 'work')
    job = start(*given, MMN_FAULT=repr({'raise': (1, 1)}))
    output = output_of(job, 'the fault comes now')
    assert 'the fault comes now' in output
    assert job.returncode != 0
    first = re.search(r'^.*Error.*$', output, re.MULTILINE)[0]
    assert 'a fault of the test' in first
    cause = output[output.index('Root Cause') :]
    assert re.search(r'rank *: 1 ', cause)
    assert re.search(r'exitcode *: 1 ', cause)
    assert 'Connection closed' not in output


def test_two_agents_stop_together(config, tmp_path):
    """Two machines, as far as torchrun can tell; SIGTERM to one of them."""
    port = Zygote.free_port()
    given = (
        config,
        1,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'train_cfg.max_epochs=2000',
    )
    nodes = [start(*given, NNODES='2', NODE_RANK=str(node), PORT=str(port)) for node in (0, 1)]
    deadline = time.monotonic() + 300
    while not (tmp_path / 'work/epoch_2.pth').exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    nodes[1].send_signal(signal.SIGTERM)
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    saved = Path((tmp_path / 'work/last_checkpoint').read_text())
    assert saved.is_file(), outputs[0][-3000:]
    checkpoint = torch.load(saved, weights_only=True)
    assert checkpoint['run_state']['world_size'] == 2
    stopped = re.search(r'stopping after iteration (\d+)', outputs[0])
    assert int(stopped[1]) == checkpoint['meta']['iter'], outputs[0][-3000:]
    assert [node.returncode for node in nodes] == [143, 143]
    for output in outputs:
        assert 'Traceback' not in output
        assert 'ChildFailedError' not in output


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MB, mounted for the test."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(disk)]
    if shutil.which('mount') is None or subprocess.run(command, check=False).returncode:
        pytest.skip('mounting a small disk needs the rights of root')
    yield disk
    subprocess.run(['umount', '-l', str(disk)], check=True)


def remount(disk, *options):
    subprocess.run(['mount', '-o', ','.join(('remount', *options)), str(disk)], check=True)


def test_a_full_and_a_read_only_disk_leave_the_earlier_checkpoints(
    config, small_disk, tmp_path, zygote
):
    def run(*arguments, epochs=30):
        given = [config, '--work-dir', small_disk, *arguments]
        given += ['--cfg-options', f'train_cfg.max_epochs={epochs}', 'log_level="ERROR"']
        return zygote.run(*given, ranks=1, output=tmp_path / f'{time.monotonic()}.txt')

    codes, output = run()
    assert codes == [1]
    errors = re.findall(r'^Error: .*$', output, re.MULTILINE)
    assert len(errors) == 1, output[-3000:]
    assert 'No space left on device' in errors[0]
    files = sorted(small_disk.glob('epoch_*.pth'))
    assert files
    assert [damage(path) for path in files] == [None] * len(files)
    assert not list(small_disk.glob('*.part'))

    remount(small_disk, 'ro')
    codes, output = run('--resume')
    assert codes == [1]
    assert re.search(r'^Error: .*disk .*Read-only file system', output, re.MULTILINE), output

    remount(small_disk, 'rw', 'size=20m')
    done = len(files)
    codes, output = run('--resume', epochs=done + 1)
    assert codes == [0], output[-3000:]
    assert (small_disk / f'epoch_{done + 1}.pth').is_file()
