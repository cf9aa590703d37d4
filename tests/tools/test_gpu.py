"""The parts of `tools/reproduce.py gpu`, run for real on a CPU with narrow models, and what they
are run by."""

import os
import runpy
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.run_tool import ROOT, output_of, run_tool
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_extractors import write_recognizer


@pytest.fixture(scope='module')
def reproduce():
    return runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))


@pytest.fixture(scope='module')
def gpu(reproduce):
    return sys.modules['reproduction.gpu']


@pytest.fixture(scope='module')
def plan(gpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp('gpu')
    config = str(write_config(folder / 'tiny.py', write_corpus(folder / 'corpus')))
    variants = {
        'dense fp32': ('dense', 'fp32', {}),
        'dense tf32': ('dense', 'tf32', {}),
        'sparse bf16': ('sparse', 'bf16', {}),
    }
    sizes = dict(batch_size=2, epoch_rows=20, test_videos=5, frames=30, library=500, repeats=2)
    sizes['searched'] = 3000
    how = dict(device='cpu', seconds=0.01, golden='eval_charades.npz', towers=('tiny',))
    return gpu.Plan(configs=dict(tacos=config), variants=variants, **sizes, **how)


def in_turn(monkeypatch, gpu):
    """Parts run in this process."""
    monkeypatch.setattr(gpu, 'in_process', lambda function, plan, limit: function(plan))


def test_steps_of_all_variants_are_timed_and_one_that_cannot_run_is_named(gpu, plan, monkeypatch):
    in_turn(monkeypatch, gpu)
    *_, found = gpu.measure_parts(plan, ['train-tacos', 'test-tacos'])
    training = found['train-tacos']
    assert [row['name'] for row in training['rows']] == ['dense fp32', 'sparse bf16']
    assert training['errors']['dense tf32'].startswith('InputError: --dtype tf32 is for CUDA')
    first = training['rows'][0]
    assert first['steps'] == 2 * 8 // 2  # epochs, videos, videos of a step
    assert first['hours'] == pytest.approx(8 * first['seconds'] / 3600)
    groups = {row['group'] for row in found['test-tacos']['rows']}
    assert groups == {'prediction, 1 video', 'prediction, 2 videos'}
    text = gpu.render_gpu(dict(measured=found))
    assert text.count('| train-tacos | 2 | ') == 2
    assert '- train-tacos, dense tf32: InputError' in text


def test_all_other_parts_find_their_figures(gpu, plan, monkeypatch):
    parts = sys.modules['reproduction.gpu_parts']
    in_turn(monkeypatch, gpu)
    monkeypatch.setattr(parts, 'tiny', write_recognizer, raising=False)
    run = SimpleNamespace(run=lambda command, **_: run_tool('train.py', *command[2:]))
    monkeypatch.setattr(parts, 'subprocess', SimpleNamespace(run=run.run, DEVNULL=None))
    names = ['agreement-dense', 'memory', 'epoch', 'evaluation', 'extraction', 'scan', 'search']
    *_, found = gpu.measure_parts(plan, names)
    assert (found['agreement-dense']['files'], found['agreement-dense']['failed']) == (1, [])
    for row in found['memory']['rows']:
        assert row['estimated_mb'] == pytest.approx(row['measured_mb'], rel=0.15)
    exact, rounded = (row['estimated_mb'] for row in found['memory']['rows'])
    assert exact != rounded  # fp32 and bf16
    assert (found['epoch']['videos'], found['epoch']['steps']) == (8, 4)
    assert found['epoch']['seconds'] > found['epoch']['data_seconds']
    assert (found['evaluation']['videos'], found['evaluation']['moments']) == (5, 36)
    (tower,) = found['extraction']['rows']
    assert tower['decoded_per_second'] == pytest.approx(4 * 30 / tower['seconds'])
    assert tower['described_per_second'] == pytest.approx(4 * 8 / tower['seconds'])
    assert [row['sentences'] for row in found['scan']['rows']] == [1, 32]
    for row, name in zip(found['search']['rows'], ('exact search', 'full scan'), strict=True):
        assert (row['variant'], row['device']) == (name, 'cpu')
        assert row['right'] == 1.0 or (name == 'full scan' and row['right'] > 0.95)  # in float32
        assert row['ms'] > 0
    lines = gpu.render_gpu(dict(measured=found)).splitlines()
    assert [line.split(':')[0].removeprefix('- ') for line in lines] == names


def test_a_figure_beyond_its_bound_is_listed(gpu, plan, monkeypatch):
    reference = sys.modules['verify_reference']
    compare = reference.check_evaluation
    row = SimpleNamespace(quantity='recall', max_rel=0.5, bound=0.1, passed=False)

    def check(golden, device):
        return SimpleNamespace(rows=[*compare(golden, device).rows, row])

    monkeypatch.setattr(reference, 'check_evaluation', check)
    found = gpu.PARTS['agreement-dense'](plan)
    wrong = dict(file='eval_charades.npz', quantity='recall', share=5.0)
    assert (found['failed'], found['worst']) == ([wrong], wrong)


def test_gathering_gives_every_gpu_all_rows(gpu, plan, tmp_path, monkeypatch):
    parts = sys.modules['reproduction.gpu_parts']
    grid = dict(num_clips=8, pooling_counts=[7])
    try:
        parts._gather(0, 1, plan, 3, grid, str(tmp_path))
    finally:
        assert not torch.distributed.is_initialized()
    assert (tmp_path / 'figures.json').is_file()
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    assert gpu.PARTS['gather'](Namespace(device='cuda')) == dict(skipped='there is one GPU')


def test_a_part_that_fails_dies_or_takes_too_long_is_recorded_and_the_rest_goes_on(
    gpu, plan, monkeypatch
):
    parts = dict(
        fails=partial(int, base='x'),
        dies=partial(os._exit),
        sleeps=partial(time.sleep),
        works=partial(dict, figure=1),
    )
    arguments = dict(fails='1', dies=3, sleeps=600, works=[])
    limits = dict(fails=60, dies=60, sleeps=1, works=60)
    run, names = gpu.in_process, iter(parts)

    def in_process(function, plan, limit):
        name = next(names)
        return run(function, arguments[name], limit=limits[name])

    monkeypatch.setattr(gpu, 'PARTS', parts)
    monkeypatch.setattr(gpu, 'in_process', in_process)
    seen = [dict(found) for found in gpu.measure_parts(plan, [*parts])]
    assert [[*found] for found in seen] == [[*parts][: count + 1] for count in range(4)]
    found = seen[-1]
    assert 'TypeError' in found['fails']['error']
    assert found['dies']['error'] == 'its process ended with exit code 3'
    assert found['sleeps']['error'] == 'stopped after 1 s'
    assert found['works']['figure'] == 1
    assert all(part['part_seconds'] > 0 for part in found.values())
    del found['works']
    assert '- dies: failed, its process ended' in gpu.render_gpu(dict(measured=found))


def begin_another(path: str) -> None:
    """Begin a process that writes after a while, and wait."""
    subprocess.Popen(['sh', '-c', f'echo > {path}.begun; sleep 3; echo > {path}'])
    time.sleep(600)


def test_what_a_part_began_ends_with_it(gpu, tmp_path):
    # the limit counts from before the part's process has imported what it needs
    limit, begun = 4.0, tmp_path / 'file.begun'
    while not begun.exists():
        found = gpu.in_process(begin_another, str(tmp_path / 'file'), limit=limit)
        assert 'stopped after' in found['error']
        limit *= 1.5
    time.sleep(4)
    assert not (tmp_path / 'file').exists()


def test_no_part_begins_after_the_time_of_all(gpu, monkeypatch):
    in_turn(monkeypatch, gpu)
    found = list(gpu.measure_parts(gpu.Plan(total=0.0), ['scan']))
    assert found == [dict(scan=dict(error='not begun: 0 s were over'))]


def test_what_comes_in_parts_is_written_after_each(reproduce, monkeypatch, tmp_path):
    written = []

    def measure(parts):
        for part in parts:
            written.append(part)
            yield dict(measured=list(written))

    monkeypatch.setitem(reproduce['EXPERIMENTS'], 'gpu', measure)
    results = reproduce['measure']('gpu', Namespace(parts=['scan', 'epoch']))
    first = next(results)
    assert (first['measured'], written) == (['scan'], ['scan'])
    assert first['command'] == 'python tools/reproduce.py gpu --parts scan epoch'
    assert next(results)['measured'] == ['scan', 'epoch']


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    before = sorted((ROOT / 'docs' / 'results').iterdir())
    assert 'no GPU on this machine' in output_of('reproduce.py gpu', code=3)
    assert sorted((ROOT / 'docs' / 'results').iterdir()) == before


def test_wheels_are_installed_beside_the_machines_own_pytorch(reproduce, monkeypatch, tmp_path):
    wheels = sys.modules['reproduction.wheels']
    names = ('torch-2.14-cp311.whl', 'nvidia_nccl-2-py3.whl', 'rich-15-py3.whl')
    for name in names:
        (tmp_path / name).touch()
    asked, begun = [], []
    monkeypatch.setattr(wheels.subprocess, 'run', lambda command, check: asked.extend(command))
    monkeypatch.setattr(wheels.os, 'execv', lambda *arguments: begun.append(arguments))
    monkeypatch.setattr(wheels.os, 'environ', dict(PYTHONPATH='mine'))
    wheels.use_wheels(tmp_path)
    assert {'--no-index', '--no-deps'} <= set(asked)
    assert [path.name for path in asked if isinstance(path, Path)] == ['rich-15-py3.whl']
    target, *others = wheels.os.environ['PYTHONPATH'].split(os.pathsep)
    assert others == [str(ROOT), 'mine']
    assert asked[asked.index('--target') + 1] == target
    assert begun == [(sys.executable, [sys.executable, *sys.argv])]
    wheels.use_wheels(tmp_path)  # the second time they are there
    assert len(begun) == 1
    for words in (['--wheels', 'x'], ['--wheels=x'], ['--parts', 'scan', '--wheel', 'x']):
        assert wheels.wheels_of(['gpu', *words]) == Path('x')
    assert wheels.wheels_of(['gpu', '--parts', 'scan']) is None
    with pytest.raises(SystemExit):
        wheels.wheels_of(['gpu', '--wheels'])
    wheels.os.environ.clear()
    with pytest.raises(SystemExit, match='holds no wheels'):
        wheels.use_wheels(tmp_path / 'none')
