"""tools/launch.py: one message where a mistake of the user ends all processes, else a report."""
import os
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_config, write_corpus
from helpers.zygote import Zygote

from mmn_plugin.engine.runner.told_once import tell_once

REPORT = ('ChildFailedError', 'torch.distributed', 'torch/distributed', 'Root Cause', 'exitcode')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('launch')
    return write_config(folder / 'tiny.py', write_corpus(folder / 'corpus', train=4, test=3))


def start(*arguments, **environment):
    kept = {key: value for key, value in os.environ.items() if key not in ('RANK', 'LOCAL_RANK')}
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.Popen(
        ['bash', str(ROOT / 'tools' / 'dist_train.sh'), *map(str, arguments)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(
            kept, PYTHON=sys.executable, PYTHONPATH=path, OMP_NUM_THREADS='1', **environment))


def ends_in(output: str, message: str) -> bool:
    """Whether the last line is this message, printed once, without a report or a traceback."""
    assert not [word for word in (*REPORT, 'Traceback') if word in output], output[-3000:]
    assert len(re.findall('^Error', output, re.MULTILINE)) == 1, output[-3000:]
    last = output.rstrip().splitlines()[-1]
    return last.startswith('Error') and message in last


def test_an_absent_config_is_one_line(tmp_path):
    job = start(tmp_path / 'absent.py', 2)
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 1
    assert ends_in(output, 'there is no config')
    assert len(output.strip().splitlines()) == 1


def test_an_absent_feature_file_is_the_last_line_on_each_of_two_machines(config, tmp_path):
    port = Zygote.free_port()
    jobs = [start(config, 2 - node, '--work-dir', tmp_path / 'work', '--cfg-options',
                  'train_dataloader.dataset.data_prefix.features=absent.h5',
                  NNODES='2', NODE_RANK=str(node), PORT=str(port)) for node in (0, 1)]
    outputs = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [1, 1]
    for output in outputs:
        assert ends_in(output, 'absent.h5 do not exist')


@pytest.fixture(scope='module')
def launcher():
    return SimpleNamespace(**runpy.run_path(str(ROOT / 'tools' / 'launch.py')))


@pytest.mark.parametrize(('exit_codes', 'told', 'expected'), [
    ({0: 1}, [0], True),
    ({0: 1, 1: -15}, [0], True),  # stopped by torchrun
    ({0: 2}, [], True),  # argparse
    ({0: 1}, [], False),  # a traceback
    ({0: -9}, [], False),
    ({0: 1, 1: -9}, [0], False),
    ({0: 1, 1: 1}, [1], False),
    ({0: -15}, [], False)])
def test_the_report_is_left_out_only_where_all_is_told(
        launcher, tmp_path, exit_codes, told, expected):
    for rank in told:
        (tmp_path / f'rank_{rank}').touch()
    failures = {rank: SimpleNamespace(exitcode=code) for rank, code in exit_codes.items()}
    assert launcher.explained(failures, tmp_path) is expected


def test_one_process_of_several_tells_a_message(tmp_path, monkeypatch):
    def tells(rank, message):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setenv('LOCAL_RANK', rank)
        return tell_once(message, patience=0.1)

    assert [tells('0', 'a'), tells('1', 'a')] == [True, True]  # no launcher of ours
    monkeypatch.setenv('MMN_LAUNCH_FOLDER', str(tmp_path / 'gone'))
    assert [tells('0', 'a'), tells('1', 'a')] == [True, True]
    monkeypatch.setenv('MMN_LAUNCH_FOLDER', str(tmp_path))
    assert [tells('0', 'a'), tells('1', 'a'), tells('1', 'b')] == [True, False, True]
    assert (tmp_path / 'rank_0').exists()
    assert (tmp_path / 'rank_1').exists()
