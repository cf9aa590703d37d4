"""How experiments count and choose; their results are tests/test_readme.py's."""

import runpy
import sys

import pytest
import torch
from helpers.run_tool import ROOT
from helpers.tiny_corpus import write_corpus
from helpers.tiny_grounder import save_checkpoint
from helpers.tiny_weak import write_weak_config

TESTS = """
import pytest

@pytest.fixture
def broken():
    raise OSError

def test_passes(): pass
def test_fails(): assert 0
def test_skips(): pytest.skip('not here')
def test_cannot_begin(broken): pass
@pytest.mark.parametrize('part', [0.5, 1.5])
def test_part(part): assert part < 1
"""


@pytest.fixture(scope='module')
def modules():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return lambda name: sys.modules[f'reproduction.{name}']


def test_every_fault_is_tried_by_tests_that_are_there(modules):
    faults = modules('faults').FAULTS
    assert all(fault['tests'] for fault in faults)
    named = {f'tests/{test}' for fault in faults for test in fault['tests']}
    collected = set()

    class Collector:
        def pytest_collection_finish(self, session):
            collected.update(item.nodeid.partition('[')[0] for item in session.items)

    files = sorted({str(ROOT / test.partition('::')[0]) for test in named})
    options = ['--collect-only', '-qq', '-p', 'no:cacheprovider', '-p', 'no:xdist']
    pytest.main([*options, f'--rootdir={ROOT}', *files], plugins=[Collector()])
    assert named <= collected


def test_outcomes_are_those_of_the_tests(modules, tmp_path):
    (tmp_path / 'pytest.ini').write_text('[pytest]\n')
    (tmp_path / 'test_a.py').write_text(TESTS)
    expected = {
        'test_a.py::test_passes': 'passed',
        'test_a.py::test_fails': 'failed',
        'test_a.py::test_skips': 'skipped',
        'test_a.py::test_cannot_begin': 'failed',
        'test_a.py::test_part': 'failed',
    }
    outcomes = modules('faults').outcomes
    assert outcomes(list(expected), tmp_path) == expected
    gone = 'test_a.py::test_gone'
    assert outcomes([gone], tmp_path) == {gone: 'absent'}


def test_a_fault_counts_as_survived_where_all_its_tests_pass_and_the_table_hides_no_failure(
    modules,
):
    faults = modules('faults')
    kinds = ('passed', 'failed', 'absent', 'skipped')
    rounds = [dict(outcomes=dict(a=kind, b='passed')) for kind in kinds]
    counts = [faults.count(['a', 'b'], part) for part in (rounds, rounds[:1], rounds[3:])]
    assert counts[0] == dict(tried=3, survived=1)
    rows = [
        dict(done=name, lost='nothing', **counted)
        for name, counted in zip(('bad', 'good', 'never'), counts, strict=True)
    ]
    assert faults.render_faults(dict(faults=rows)).splitlines()[2:] == [
        '| bad | 3 | **not as it must in 2 of 3**; else nothing |',
        '| good | 1 | nothing |',
        '| never | 0 | not tried: this machine cannot |',
    ]


class InTurn:
    """A pool that has no processes."""

    map = staticmethod(map)


def test_setting_epoch_and_thresholds_are_the_best_mean_of_all_seeds(modules, monkeypatch):
    weak = modules('weak')
    figures = {  # of two epochs and two thresholds, for each seed
        (('a=1',), 0): [[10.0, 60.0], [90.0, 20.0]],
        (('a=1',), 1): [[10.0, 60.0], [20.0, 20.0]],
        (('a=2',), 0): [[50.0, 50.0], [61.0, 50.0]],
        (('a=2',), 1): [[50.0, 50.0], [61.0, 50.0]],
        ((), 0): [[1.0, 2.0], [3.0, 4.0]],
        ((), 1): [[1.0, 2.0], [3.0, 4.0]],
    }
    monkeypatch.setattr(weak, 'validated', lambda options, seed: figures[options, seed])
    chosen = weak.choose(InTurn, {'row': (('a=1',), ('a=2',)), 'other': ((),)}, [0, 1])
    row = chosen['row']
    assert (row['options'], row['epoch'], row['R1@0.5']) == (['a=2'], 2, 61.0)
    assert row['run_thresholds'] == list(weak.THRESHOLDS[0])
    assert [[epoch['R1@0.5'] for epoch in trial['epochs']] for trial in row['tried']] == [
        [60.0, 55.0],
        [50.0, 61.0],
    ]
    assert chosen['other']['run_thresholds'] == list(weak.THRESHOLDS[1])


def test_a_weak_checkpoint_is_tested_with_each_set_of_thresholds(modules, monkeypatch, tmp_path):
    weak = modules('weak')
    config = write_weak_config(tmp_path / 'weak.py', write_corpus(tmp_path / 'corpus'))
    save_checkpoint(config, tmp_path / 'epoch_1.pth')
    monkeypatch.setattr(weak, 'WEAK', str(config))
    monkeypatch.setattr(weak, 'run_of', lambda options, seed: (tmp_path, 2.0))
    (epoch,) = weak.validated(('model.head.top_n=3',), 0)
    assert len(epoch) == len(weak.THRESHOLDS)
    _, head, found = weak.scored((), tmp_path / 'epoch_1.pth', 'test')
    low, high = (
        [sample.pred_instances.moments[:, 0].diff() for sample in weak.ranked(head, found, [share])]
        for share in (0.05, 0.95)
    )
    assert (torch.cat(low) > torch.cat(high)).any()
    assert (torch.cat(low) >= torch.cat(high)).all()  # lengths of the first answers
    metrics = weak.tested(dict(options=(), epoch=1, run_thresholds=[0.5]), 0)
    assert metrics['train_seconds'] == 2
    assert 0 <= metrics['R1@0.5'] <= 100
