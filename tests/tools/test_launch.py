"""tools/launch.py: messages, signals and exit statuses of several processes."""

import os
import runpy
import signal
import socket
import sys
import time
from types import SimpleNamespace

import pytest
from helpers.run_tool import ROOT
from torch.distributed.elastic.multiprocessing import SubprocessContext
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import config_from_args


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


def test_one_machine_takes_a_free_port_and_its_processes_share_the_cores(launcher, monkeypatch):
    found = []

    def run(args):
        threads = [os.environ.pop(f'{name}_NUM_THREADS') for name in ('OMP', 'MKL')]
        found.append((args.master_port, *threads))

    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(9))
    for name in ('OMP', 'MKL'):
        monkeypatch.delenv(f'{name}_NUM_THREADS', raising=False)
    ends(launcher, monkeypatch, run, '--nproc_per_node=4')
    port = found[0][0]
    with socket.socket() as free:
        free.bind(('127.0.0.1', port))
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    ends(launcher, monkeypatch, run, '--nproc_per_node=16', '--master_port=7')
    ends(launcher, monkeypatch, run, '--nproc_per_node=16', '--nnodes=2')
    assert found == [(port, '2', '2'), (7, '5', '5'), (29500, '1', '1')]


WORKER = """
import os, pathlib, signal, sys, time
os.chdir(pathlib.Path(__file__).parent)
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
            tmp_path / 'worker.py',
            *codes,
            tool=ROOT / 'tools/launch.py',
            launcher=False,
            ranks=1,
            output=output,
            **environment,
        )
        for number in signals:
            deadline = time.monotonic() + 600
            while not all((tmp_path / f'{step}_{rank}').exists() for rank in (0, 1)):
                assert zygote.is_running(), output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.02)
            os.kill(pid, number)
            step = 'saving'
        if saves:
            (tmp_path / 'saved').touch()
        (status,) = zygote.wait()
        return status, output.read_text()

    return run


KILLED = 'some were killed: a signal leaves them 1 s (TORCH_ELASTIC_SHUTDOWN_TIMEOUT)'
AT_ONCE = dict(saves=False, TORCH_ELASTIC_SHUTDOWN_TIMEOUT='1')
JOBS = {  # signals, exit codes of the processes, how they are run; the launcher's status and text
    'time to save': ((TERM,), (143, 143), {}, 143, ''),
    'time to save after Ctrl-C': ((INT,), (130, 130), {}, 130, ''),
    'a signal that torchrun does not hand on': ((USR1,), (143, 143), {}, 143, ''),
    'further signals': ((USR1, TERM, TERM), (143, 143), {}, 143, ''),
    'longer than they have': ((TERM,), (143, 143), AT_ONCE, 1, KILLED),
    'one cannot save': ((TERM,), (143, 1), {}, 1, ''),
    'ended at once': ((TERM,), (), {}, 143, ''),
    'ended at once by Ctrl-C': ((INT,), (), {}, 130, ''),
    'a second Ctrl-C kills': ((INT, INT), (143, 143), dict(saves=False), 1, 'some were killed'),
}


@pytest.mark.parametrize('name', JOBS)
def test_the_status_after_signals_is_that_of_the_processes(job, name):
    signals, codes, how, expected, text = JOBS[name]
    status, output = job(*signals, codes=codes, **how)
    assert status == expected, output
    assert f'{signals[0].name}: the processes have ended; exit status {expected}' in output
    assert text in output
    if codes:  # they take the signal themselves
        assert 'Traceback' not in output
