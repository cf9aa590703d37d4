"""tools/launch.py: messages, signals and exit statuses of several processes."""

import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_config, write_corpus
from helpers.zygote import Zygote
from torch.distributed.elastic.multiprocessing import SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import config_from_args


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('launch')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus', train=4, test=3))


def start(*arguments, **environment):
    kept = {key: value for key, value in os.environ.items() if key not in ('RANK', 'LOCAL_RANK')}
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(kept, PYTHON=sys.executable, PYTHONPATH=path, OMP_NUM_THREADS='1', **environment),
    )


def said(output: str, message: str) -> bool:
    """Whether a process ended with this message, and none with a traceback."""
    assert 'Traceback' not in output, output[-3000:]
    return bool(re.search(f'^Error.*{re.escape(message)}', output, re.MULTILINE))


def test_an_absent_config_is_one_line_per_process(tmp_path):
    job = start(tmp_path / 'absent.py', 2)
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 1
    assert said(output, 'there is no config')


def test_an_absent_feature_file_is_said_on_each_of_two_machines(config, tmp_path):
    port = Zygote.free_port()
    jobs = [
        start(
            config,
            2 - node,
            '--work-dir',
            tmp_path / 'work',
            '--cfg-options',
            'train_dataloader.dataset.data_prefix.features=absent.h5',
            NNODES='2',
            NODE_RANK=str(node),
            PORT=str(port),
        )
        for node in (0, 1)
    ]
    outputs = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [1, 1]
    for output in outputs:
        assert said(output, 'absent.h5 do not exist')


def test_a_port_in_use_is_one_line(config, tmp_path):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = str(other.getsockname()[1])
        job = start(config, 2, '--work-dir', tmp_path / 'work', PORT=port)
        output = job.communicate(timeout=300)[0]
    assert job.returncode == 1
    assert said(output, f'port {port} of this machine')


@pytest.fixture(scope='module')
def launcher():
    return SimpleNamespace(**runpy.run_path(str(ROOT / 'tools' / 'launch.py')))


TERM, INT, USR1 = (signal.Signals[f'SIG{name}'] for name in ('TERM', 'INT', 'USR1'))


@pytest.mark.parametrize(
    ('codes', 'number', 'expected'),
    [
        ([0, 0], None, 0),
        ([0, 0], TERM, 0),  # it had trained to the end
        ([143, 143], None, 143),  # one process was signaled, or the other machine
        ([143, -15], None, 143),
        ([143, 143], TERM, 143),
        ([143, 143], USR1, 143),
        ([130, 130], INT, 130),
        ([85, 85], TERM, 85),  # PreemptionHook(exit_code=85)
        ([-15, -15], TERM, 143),  # before training
        ([-15], None, 143),
        ([-10, -10], USR1, 143),
        ([], TERM, 143),  # before there were processes
        ([-2, -2], INT, 130),
        ([1, -15], None, 1),
        ([2, 2], None, 2),
        ([-9, 143], TERM, 1),
        ([1, 143], TERM, 1),  # one could not save
        ([-10, -15], TERM, 1),
        ([-11], None, 1),
    ],
)
def test_the_exit_status_tells_preemption_from_failure(launcher, codes, number, expected):
    assert launcher.exit_status(codes, number) == expected


def ends(launcher, monkeypatch, action, *arguments) -> int:
    """Exit status where torchrun does `action`."""
    monkeypatch.setitem(launcher.main.__globals__, 'run', action)
    monkeypatch.setattr(SubprocessContext, 'close', SubprocessContext.close)
    monkeypatch.setattr(sys, 'argv', ['launch.py', *arguments, 'script.py'])
    for name in (launcher.TIMEOUT, launcher.SIGNALS):
        monkeypatch.setenv(name, os.environ.get(name, ''))
        if not os.environ[name]:
            monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as stop:
        launcher.main()
    return stop.value.code


@pytest.mark.parametrize(
    ('exit_code', 'nodes', 'node', 'expected'),
    [(143, '2', '1', 143), (1, '2', '1', 255), (1, '1', '0', 1), (1, '2', None, 1)],
)
def test_of_several_tasks_of_srun_a_failed_one_has_the_highest_status(
    launcher, monkeypatch, exit_code, nodes, node, expected
):
    monkeypatch.delenv('SLURM_NODEID', raising=False)
    if node is not None:
        monkeypatch.setenv('SLURM_NODEID', node)

    def fails(args):
        failure = ProcessFailure(local_rank=0, pid=1, exitcode=exit_code, error_file='none')
        raise ChildFailedError('script.py', {0: failure})

    assert ends(launcher, monkeypatch, fails, f'--nnodes={nodes}') == expected


def test_processes_get_ten_minutes_and_more_signals_than_torchrun_hands_on(launcher, monkeypatch):
    configs = []

    def run(args):
        configs.append(config_from_args(args)[0])

    for name in (launcher.TIMEOUT, launcher.SIGNALS):
        monkeypatch.delenv(name, raising=False)
    assert ends(launcher, monkeypatch, run) == 0
    monkeypatch.setenv(launcher.TIMEOUT, '90')
    monkeypatch.setenv(launcher.SIGNALS, 'SIGTERM,SIGXCPU')
    assert ends(launcher, monkeypatch, run) == 0
    assert ends(launcher, monkeypatch, run, '--shutdown-timeout=80') == 0
    assert [config.shutdown_timeout for config in configs] == [600, 90, 80]
    assert configs[0].signals_to_handle == 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2'
    assert configs[1].signals_to_handle == 'SIGTERM,SIGXCPU'


WORKER = """
import os, pathlib, signal, sys, time
rank, codes, stopping, launcher = int(os.environ['RANK']), sys.argv[1:], [], os.getppid()
def stop(number, frame):
    if not stopping:
        stopping.append(number)
        pathlib.Path(f'saving_{rank}').touch()
        while not pathlib.Path('saved').exists() and os.getppid() == launcher:
            time.sleep(0.05)
        os._exit(int(codes[rank]))
if codes:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, stop)
pathlib.Path(f'ready_{rank}').touch()
while os.getppid() == launcher:
    time.sleep(0.05)
"""


@pytest.fixture
def job(zygote, tmp_path):
    """Start two processes and signal the launcher; given codes, they end with these once saved."""
    (tmp_path / 'worker.py').write_text(WORKER)

    def run(*signals, codes=(), saves=True, **environment):
        output, step = tmp_path / 'output.txt', 'ready'
        (pid,) = zygote.start(
            f'--master_port={zygote.free_port()}',
            '--nproc_per_node=2',
            'worker.py',
            *codes,
            tool=ROOT / 'tools/launch.py',
            launcher=False,
            ranks=1,
            cwd=str(tmp_path),
            output=output,
            **environment,
        )
        for number in signals:
            deadline = time.monotonic() + 600
            while not all((tmp_path / f'{step}_{rank}').exists() for rank in (0, 1)):
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.02)
            os.kill(pid, number)
            step = 'saving'
        if saves:
            (tmp_path / 'saved').touch()
        (status,) = zygote.wait()
        return status, output.read_text()

    return run


@pytest.mark.parametrize('signals', [(TERM,), (INT,), (USR1,), (USR1, TERM, TERM)])
def test_processes_have_time_to_save_and_their_status_is_the_launchers(job, signals):
    code = 130 if INT in signals else 143
    status, output = job(*signals, codes=(code, code))
    assert status == code, output
    assert f'{signals[0].name}: the processes have ended; exit status {code}' in output
    assert 'Traceback' not in output


def test_processes_that_take_longer_are_killed_and_that_is_no_preemption(job):
    status, output = job(TERM, codes=(143, 143), saves=False, TORCH_ELASTIC_SHUTDOWN_TIMEOUT='1')
    assert status == 1
    assert 'some were killed: a signal leaves them 1 s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT)' in output


def test_a_process_that_could_not_save_is_a_failure(job):
    assert job(TERM, codes=(143, 1))[0] == 1


@pytest.mark.parametrize(('signals', 'expected'), [((TERM,), 143), ((INT,), 130)])
def test_processes_that_a_signal_ends_at_once(job, signals, expected):
    assert job(*signals)[0] == expected


def test_a_second_interrupt_kills_processes_that_do_not_end(job):
    status, output = job(INT, INT, codes=(143, 143), saves=False)
    assert status == 1
    assert 'SIGINT: the processes have ended; exit status 1; some were killed' in output
