"""tools/dist_train.sh and dist_test.sh with two processes, as a user calls them."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')


@pytest.fixture(scope='module')
def dist_run(run_command, toy_config, tmp_path_factory):
    """Folder of a training in two processes, and its output."""
    folder = tmp_path_factory.mktemp('dist run')  # a blank in a path must do no harm
    done = run_command(
        'bash', TOOLS / 'dist_train.sh', toy_config, 2, '--work-dir', folder / 'out', '--seed', '3',
        '--cfg-options', 'train_cfg.max_epochs=2', cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout + done.stderr


def test_training_runs_in_two_processes(dist_run):
    folder, output = dist_run
    assert 'Distributed launcher: pytorch' in output
    assert 'GPU number: 2' in output  # MMEngine's word for the number of processes
    assert 'Epoch(train) [1][2/2]' in output or 'Epoch(val) [1][2/2]' in output
    assert (folder / 'out/epoch_2.pth').is_file()


def test_testing_gathers_from_all_processes(dist_run, run_command, toy_config):
    folder, _ = dist_run
    done = run_command('bash', TOOLS / 'dist_test.sh', toy_config, 'out/epoch_2.pth', 2, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'toy/items: 8' in done.stdout + done.stderr


@ON_CPU
def test_stock_mmengine_cannot_distribute_on_the_cpu(run_command, toy_config, tmp_path):
    done = run_command(
        'bash', TOOLS / 'dist_train.sh', toy_config, 1, cwd=tmp_path,
        MMN_PLUGIN_WITHOUT='distribute_on_cpu',
    )  # fmt: skip
    assert done.returncode == 1
    assert 'set_device' in done.stderr


@ON_CPU
def test_stock_mmengine_gives_a_cpu_model_a_device_number(tmp_path):
    wrap = MMDistributedDataParallel.__init__
    store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match='device_ids'):
            wrap.__wrapped__(
                object.__new__(MMDistributedDataParallel), torch.nn.Linear(1, 1), device_ids=[0]
            )
        MMDistributedDataParallel(torch.nn.Linear(1, 1), device_ids=[0])
    finally:
        torch.distributed.destroy_process_group()


def test_own_script_of_a_downstream_project_works_too(run_command, toy_config, tmp_path):
    # the stock launcher, and MMAction2's way of writing a training script
    (tmp_path / 'own_train.py').write_text(
        'import sys, mmn_plugin\n'
        'from mmengine.config import Config\n'
        'from mmengine.runner import Runner\n'
        'config = Config.fromfile(sys.argv[1])\n'
        "config.merge_from_dict(dict(launcher='pytorch', work_dir='out'))\n"
        'Runner.from_cfg(config).train()\n'
    )
    done = run_command(
        sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=1',
        '--rdzv_backend=c10d', '--rdzv_endpoint=127.0.0.1:0', 'own_train.py', toy_config,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out/epoch_1.pth').is_file()


def bash(script, **environment):
    """Run dist_common.sh's launch with a python that prints its arguments."""
    return subprocess.run(
        ['bash', '-c', f'. {shlex.quote(f"{TOOLS}/dist_common.sh")}; {script}'],
        env={'PATH': '/usr/bin:/bin', **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def fake_python(tmp_path):
    path = tmp_path / 'python'
    path.write_text(
        '#!/bin/bash\nif [ "$1" = -c ]; then exec ' + sys.executable + ' "$@"; fi\n'
        'echo "threads=$OMP_NUM_THREADS" "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def test_launcher_takes_a_free_port_and_shares_the_cores(fake_python):
    first = bash('launch s.py 2 a', PYTHON=fake_python).stdout
    port = int(re.search(r'--master_port=(\d+)', first)[1])
    with socket.socket() as taken:
        taken.bind(('', port))
        second = bash('launch s.py 2 a', PYTHON=fake_python).stdout
    assert f'--master_port={port} ' not in second
    assert re.search(r'--master_port=\d+ ', second)
    assert re.search(r'threads=[1-9]', first)
    assert first.endswith('--nproc_per_node=2 s.py a --launcher pytorch\n')


def test_launcher_follows_the_environment(fake_python):
    done = bash(
        'launch s.py 8', PYTHON=fake_python, NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1',
        OMP_NUM_THREADS='5',
    )  # fmt: skip
    for part in (
        'threads=5', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=29500'
    ):  # fmt: skip
        assert part in done.stdout


@pytest.mark.parametrize('status', [0, 1, 143])
@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_the_exit_status_is_the_launchers(name, status, fake_python):
    with open(fake_python, 'a') as file:
        file.write(f'exit {status}\n')
    done = subprocess.run(
        ['bash', TOOLS / name, 'c.py', '2', '2'], capture_output=True, check=False,
        env={'PATH': '/usr/bin:/bin', 'PYTHON': fake_python},
    )  # fmt: skip
    assert done.returncode == status


@pytest.mark.parametrize('processes', ['0', 'two', ''])
def test_launcher_refuses_a_bad_number_of_processes(processes, fake_python):
    done = bash(f'launch s.py "{processes}"', PYTHON=fake_python)
    assert done.returncode == 2
    assert 'number of processes' in done.stderr


@pytest.mark.parametrize('name', ['dist_train.sh', 'dist_test.sh'])
def test_call_without_arguments_prints_the_usage(name):
    done = subprocess.run(['bash', TOOLS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f'bash tools/{name} CONFIG' in done.stderr


def test_the_end_of_a_distributed_run_writes_what_is_left(tmp_path):
    # os._exit skips finalisers: what they would have written must be on disk all the same
    (tmp_path / 'end.py').write_text(
        'import atexit, sys, types, torch\n'
        'from mmn_plugin.cli.command_line import end_distributed\n'
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
    done = subprocess.run(
        [sys.executable, 'end.py'], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(TOOLS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'still here\n'
    assert (tmp_path / 'atexit.txt').read_text() == 'done'
    assert (tmp_path / 'closed.txt').read_text() == 'done'
