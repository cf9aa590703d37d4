"""dist_train.sh, dist_test.sh and the scripts for Slurm, as a user calls them."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.processes import started
from helpers.tiny_corpus import write_config, write_corpus
from helpers.zygote import Zygote
from mmengine.model import MMDistributedDataParallel

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
TOY = Path(__file__).parent / 'toy'
COMMON = shlex.quote(f'{TOOLS}/dist_common.sh')
ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')


def run(*command, cwd, **environment):
    """Exit code and output."""
    process = started(command, TOY, cwd=cwd, **environment)
    output = process.communicate(timeout=600)[0]
    return process.returncode, output


def test_training_and_testing_run_in_two_processes(tmp_path):
    folder = tmp_path / 'dist run'  # a blank in a path must do no harm
    folder.mkdir()
    options = ('--work-dir', folder / 'out', '--cfg-options', 'train_cfg.max_epochs=2')
    code, output = run('bash', TOOLS / 'dist_train.sh', TOY / 'toy.py', 2, *options, cwd=folder)
    assert code == 0, output
    assert 'Distributed launcher: pytorch' in output
    assert 'GPU number: 2' in output  # MMEngine's word for the number of processes
    assert 'Epoch(train) [1][2/2]' in output or 'Epoch(val) [1][2/2]' in output
    command = ('bash', TOOLS / 'dist_test.sh', TOY / 'toy.py', 'out/epoch_2.pth', 2)
    code, output = run(*command, cwd=folder)
    assert code == 0, output
    assert 'toy/items: 8' in output  # gathered from both


@ON_CPU
def test_stock_mmengine_cannot_distribute_on_the_cpu(tmp_path):
    without = dict(MMN_PLUGIN_WITHOUT='distribute_on_cpu')
    code, output = run('bash', TOOLS / 'dist_train.sh', TOY / 'toy.py', 1, cwd=tmp_path, **without)
    assert code == 1
    assert 'set_device' in output


@ON_CPU
def test_stock_mmengine_gives_a_cpu_model_a_device_number(tmp_path):
    wrap = MMDistributedDataParallel.__init__
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        model, stock = torch.nn.Linear(1, 1), object.__new__(MMDistributedDataParallel)
        with pytest.raises(ValueError, match='device_ids'):
            wrap.__wrapped__(stock, model, device_ids=[0])
        MMDistributedDataParallel(model, device_ids=[0])
    finally:
        torch.distributed.destroy_process_group()


def test_own_script_of_a_downstream_project_works_too(tmp_path):
    # the stock launcher, and MMAction2's way of writing a training script
    (tmp_path / 'own_train.py').write_text(
        'import sys, mmn_plugin\n'
        'from mmengine.config import Config\n'
        'from mmengine.runner import Runner\n'
        'config = Config.fromfile(sys.argv[1])\n'
        "config.merge_from_dict(dict(launcher='pytorch', work_dir='out'))\n"
        'Runner.from_cfg(config).train()\n'
    )
    launcher = ['-m', 'torch.distributed.run', '--nproc_per_node=1', '--rdzv_backend=c10d']
    script = ('--rdzv_endpoint=127.0.0.1:0', 'own_train.py', TOY / 'toy.py')
    code, output = run(sys.executable, *launcher, *script, cwd=tmp_path)
    assert code == 0, output
    assert (tmp_path / 'out/epoch_1.pth').is_file()


def said(output: str, message: str) -> bool:
    """Whether a process ended with this message, and none with a traceback."""
    assert 'Traceback' not in output, output[-3000:]
    return bool(re.search(f'^Error.*{re.escape(message)}', output, re.MULTILINE))


def test_mistakes_are_one_line_per_process(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', train=4, test=3))
    port = Zygote.free_port()
    arguments = ('--work-dir', 'work', '--cfg-options')
    arguments += ('train_dataloader.dataset.data_prefix.features=absent.h5',)
    jobs = [  # two machines
        started(
            ('bash', TOOLS / 'dist_train.sh', config, 2 - node, *arguments),
            TOY,
            cwd=tmp_path,
            NNODES='2',
            NODE_RANK=str(node),
            PORT=str(port),
        )
        for node in (0, 1)
    ]
    outputs = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [1, 1]
    assert all(said(output, 'absent.h5 do not exist') for output in outputs)
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, output = run('bash', TOOLS / 'dist_train.sh', config, 2, cwd=tmp_path, PORT=port)
    assert code == 1
    assert said(output, f'port {port} of this machine')


PYTHON = """#!/bin/bash
echo "task $*"
exit ${STATUS:-0}
"""
SRUN = """#!/bin/bash
echo "srun $*"
for argument in "$@"; do case $argument in --ntasks=*) tasks=${argument#*=};; esac; done
while [ "$1" != bash ]; do shift; done
for ((node = 0; node < tasks; node++)); do
    SLURM_NODEID=$node SLURM_JOB_NODELIST='gpu[3-4]' "$@" || exit 1
done
"""
SCONTROL = """#!/bin/bash
[ "$*" = 'show hostnames gpu[3-4]' ] && printf 'gpu3\\ngpu4\\n'
"""


@pytest.fixture
def cluster(tmp_path):
    """Run a script with stand-ins for python, srun and scontrol that print their arguments."""
    for name, text in dict(python=PYTHON, srun=SRUN, scontrol=SCONTROL).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def call(script, *arguments, **environment):
        command = ['bash', TOOLS / script, *arguments]
        environment = dict(environment, PATH=f'{tmp_path}:/usr/bin:/bin')
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return call


def test_launcher_follows_the_environment(cluster):
    machines = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    for port in ({}, dict(PORT='1234')):
        done = cluster('dist_train.sh', 'a b.py', '8', '--seed', '3', **machines, **port)
        expected = '--nnodes=2 --node_rank=1 --master_addr=10.0.0.1 '
        expected += '--master_port=1234 ' if port else ''
        assert f'{expected}--nproc_per_node=8 ' in done.stdout
        assert done.stdout.endswith('/train.py a b.py --seed 3 --launcher pytorch\n')


@pytest.mark.parametrize('status', [0, 1, 143])
@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_the_exit_status_is_the_launchers(name, status, cluster):
    assert cluster(name, 'c.py', '2', '2', STATUS=str(status)).returncode == status


@pytest.mark.parametrize(
    ('name', 'arguments', 'environment', 'message'),
    [
        *(('dist_train.sh', ['c.py', n], {}, 'number of processes') for n in ('0', 'two', '')),
        ('dist_train.sh', ['c.py', '2'], dict(PYTHON='nopython'), '.venv/bin/activate'),
        ('dist_train.sh', [], {}, 'bash tools/dist_train.sh CONFIG'),
        ('dist_test.sh', [], {}, 'bash tools/dist_test.sh CONFIG'),
        ('slurm_train.sh', [], {}, 'bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG'),
        ('slurm_test.sh', [], {}, 'bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG'),
        (
            'slurm_train.sh',
            ['p', 'j', 'c.py'],
            dict(GPUS='12'),
            'GPUS=12 is no multiple of GPUS_PER_NODE=8',
        ),
    ],
)
def test_a_wrong_call_prints_what_it_takes(cluster, name, arguments, environment, message):
    done = cluster(name, *arguments, **environment)
    assert done.returncode == 2
    assert message in done.stderr


def test_slurm_starts_one_agent_per_node_and_one_process_per_gpu(cluster):
    options = dict(GPUS='16', SRUN_ARGS='--time=60 --signal=TERM@120')
    done = cluster('slurm_train.sh', 'part', 'job', 'c.py', '--seed', '3', **options)
    assert done.returncode == 0, done.stderr
    srun, *tasks = done.stdout.splitlines()
    assert '-p part' in srun
    assert set(srun.split()) >= {
        *('--job-name=job', '--gres=gpu:8', '--nodes=2', '--ntasks=2', '--ntasks-per-node=1'),
        *('--cpus-per-task=32', '--kill-on-bad-exit=1', '--time=60', '--signal=TERM@120'),
    }
    assert len(tasks) == 2
    for node, task in enumerate(tasks):
        assert f'--nnodes=2 --node_rank={node} --master_addr=gpu3 ' in task
        assert '--nproc_per_node=8 ' in task
        assert task.endswith('train.py c.py --seed 3 --launcher pytorch')
    ports = {re.search(r'--master_port=(\d+)', task)[1] for task in tasks}
    assert len(ports) == 1


def test_a_slurm_job_has_a_port_of_its_own(cluster):
    jobs = ('12345', '12346')
    outputs = [cluster('slurm_train.sh', 'p', 'j', 'c.py', SLURM_JOB_ID=job).stdout for job in jobs]
    assert [re.search(r'--master_port=(\d+)', text)[1] for text in outputs] == ['22345', '22346']


def test_slurm_tests_a_checkpoint_and_runs_without_gpus_on_the_cpus_of_one_node(cluster):
    done = cluster('slurm_test.sh', 'p', 'j', 'c.py', 'x.pth', '--dump', 'o.json', GPUS='2')
    assert '--gres=gpu:2 --nodes=1' in done.stdout
    end = 'test.py c.py x.pth --dump o.json --launcher pytorch'
    assert done.stdout.splitlines()[1].endswith(end)
    done = cluster('slurm_train.sh', 'p', 'j', 'c.py', GPUS_PER_NODE='0', PROCESSES='3')
    assert '--gres' not in done.stdout
    assert '--nnodes=1 ' in done.stdout
    assert '--nproc_per_node=3 ' in done.stdout


# As Slurm has it: a task that fails ends the others, and the highest status is srun's.
STRICT_SRUN = """#!/bin/bash
while [ "$1" != bash ]; do shift; done
for node in 0 1; do SLURM_NODEID=$node SLURM_JOB_NODELIST=all "$@" & tasks+=($!); done
wait -n || kill -TERM "${tasks[@]}" 2> /dev/null
for task in "${tasks[@]}"; do
    wait "$task" || { status=$?; highest=$((status > highest ? status : highest)); }
done
exit $((highest))
"""
# One process per machine: once both are there it ends with its rank's status, if it has one.
TASK = """
import os, pathlib, sys, time
rank, statuses = int(os.environ['RANK']), sys.argv[1].split(',')
pathlib.Path(f'{rank}').touch()
while not (statuses[rank] and pathlib.Path(str(1 - rank)).exists()):
    time.sleep(0.05)
os._exit(int(statuses[rank]))
"""


@pytest.mark.parametrize(('statuses', 'expected'), [(',1', 255), (',143', 143)])
def test_a_failure_on_one_machine_is_not_hidden_by_the_end_of_the_others(
    tmp_path, statuses, expected
):
    (tmp_path / 'srun').write_text(STRICT_SRUN)
    (tmp_path / 'srun').chmod(0o755)
    (tmp_path / 'task.py').write_text(TASK)
    (tmp_path / 'task.sh').write_text(f'. {COMMON}; launch task.py 1 "$1"')
    job = dict(GPUS='2', GPUS_PER_NODE='1', MASTER_ADDR='127.0.0.1', PORT=str(Zygote.free_port()))
    path = f'{tmp_path}:{os.environ["PATH"]}'
    command = f'. {COMMON}; launch_slurm p j task.sh {statuses} --'
    code, output = run('bash', '-c', command, cwd=tmp_path, PATH=path, **job)
    assert code == expected, output


def test_the_end_of_a_distributed_run_writes_what_is_left(tmp_path):
    # os._exit skips finalisers: what they would have written must be on disk all the same
    (tmp_path / 'end.py').write_text(
        'import atexit, sys, types, torch\n'
        'from mmn_plugin.engine.dist import end_distributed\n'
        "atexit.register(lambda: open('atexit.txt', 'w').write('done'))\n"
        "visualizer = types.SimpleNamespace(close=lambda: open('closed.txt', 'w').write('done'))\n"
        'runner = types.SimpleNamespace(visualizer=visualizer)\n'
        'end_distributed(runner)\n'  # no process group: goes on
        "print('still here')\n"
        "store = torch.distributed.FileStore('store', 1)\n"
        "torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)\n"
        'end_distributed(runner)\n'
        "print('never here')\n"
    )
    code, output = run(sys.executable, 'end.py', cwd=tmp_path)
    assert code == 0, output
    assert 'still here' in output
    assert 'never here' not in output
    assert (tmp_path / 'atexit.txt').read_text() == 'done'
    assert (tmp_path / 'closed.txt').read_text() == 'done'
