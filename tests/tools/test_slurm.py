"""tools/slurm_train.sh and slurm_test.sh with an srun that runs its tasks on this machine."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.zygote import Zygote

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
COMMON = shlex.quote(f'{TOOLS}/dist_common.sh')
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
PYTHON = '#!/bin/bash\nif [ "$1" = -c ]; then exec {} "$@"; fi\necho "task $*"\n'


@pytest.fixture
def cluster(tmp_path):
    """Run a script with stand-ins for srun, scontrol and python; returns its lines."""
    for name, text in dict(
        srun=SRUN, scontrol=SCONTROL, python=PYTHON.format(sys.executable)
    ).items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(script, *arguments, **environment):
        return subprocess.run(
            ['bash', TOOLS / script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=dict(PATH=f'{tmp_path}:/usr/bin:/bin', **environment),
        )

    return run


def test_one_agent_per_node_and_one_process_per_gpu(cluster):
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


def test_a_job_has_a_port_of_its_own(cluster):
    outputs = [
        cluster('slurm_train.sh', 'p', 'j', 'c.py', SLURM_JOB_ID=job).stdout
        for job in ('12345', '12346')
    ]
    assert [re.search(r'--master_port=(\d+)', text)[1] for text in outputs] == ['22345', '22346']


def test_test_takes_a_checkpoint(cluster):
    done = cluster('slurm_test.sh', 'p', 'j', 'c.py', 'x.pth', '--dump', 'o.json', GPUS='2')
    assert '--gres=gpu:2 --nodes=1' in done.stdout
    assert done.stdout.splitlines()[1].endswith(
        'test.py c.py x.pth --dump o.json --launcher pytorch'
    )


def test_without_gpus_it_runs_on_the_cpus_of_one_node(cluster):
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
    done = subprocess.run(
        ['bash', '-c', f'. {COMMON}; launch_slurm p j task.sh {statuses} --'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=dict(
            os.environ,
            PATH=f'{tmp_path}:{os.environ["PATH"]}',
            PYTHON=sys.executable,
            GPUS='2',
            GPUS_PER_NODE='1',
            MASTER_ADDR='127.0.0.1',
            PORT=str(Zygote.free_port()),
        ),
    )
    assert done.returncode == expected, done.stderr


def test_an_uneven_number_of_gpus_is_refused(cluster):
    done = cluster('slurm_train.sh', 'p', 'j', 'c.py', GPUS='12')
    assert done.returncode == 2
    assert 'GPUS=12 is no multiple of GPUS_PER_NODE=8' in done.stderr


@pytest.mark.parametrize('name', ['slurm_train.sh', 'slurm_test.sh'])
def test_call_without_arguments_prints_the_usage(cluster, name):
    done = cluster(name)
    assert done.returncode == 2
    assert f'bash tools/{name} PARTITION JOB_NAME CONFIG' in done.stderr
