"""How experiments count and choose; their results are tests/test_readme.py's."""

import runpy
import sys

import pytest
from helpers.run_tool import ROOT

TESTS = """
import pytest

@pytest.fixture
def broken():
    raise OSError

def test_passes(): pass
def test_fails(): assert 0
def test_skips(): pytest.skip('not here')
def test_cannot_begin(broken): pass
@pytest.mark.parametrize('part', [0.5])
def test_part(part): pass
"""


@pytest.fixture(scope='module')
def module():
    runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))
    return sys.modules['reproduction.faults'], sys.modules['reproduction.renderers']


def test_every_fault_is_tried_by_tests_that_are_there(module):
    assert all(fault['tests'] for fault in module[0].FAULTS)
    named = {test for fault in module[0].FAULTS for test in fault['tests']}
    collected = set()

    class Collector:
        def pytest_collection_finish(self, session):
            collected.update(item.nodeid for item in session.items)

    files = sorted({str(ROOT / test.partition('::')[0]) for test in named})
    pytest.main(
        [
            '--collect-only',
            '-qq',
            '-p',
            'no:cacheprovider',
            '-p',
            'no:xdist',
            f'--rootdir={ROOT}',
            *files,
        ],
        plugins=[Collector()],
    )
    assert named <= collected


def test_outcomes_are_those_of_the_tests(module, tmp_path):
    (tmp_path / 'pytest.ini').write_text('[pytest]\n')
    (tmp_path / 'test_a.py').write_text(TESTS)
    expected = {
        'test_a.py::test_passes': 'passed',
        'test_a.py::test_fails': 'failed',
        'test_a.py::test_skips': 'skipped',
        'test_a.py::test_cannot_begin': 'failed',
        'test_a.py::test_part[0.5]': 'passed',
    }
    assert module[0].outcomes(list(expected), tmp_path) == expected
    assert module[0].outcomes(['test_a.py::test_gone'], tmp_path) == {
        'test_a.py::test_gone': 'absent'
    }


def test_a_fault_counts_as_survived_where_all_its_tests_pass(module):
    rounds = [
        dict(outcomes=dict(a=a, b=b))
        for a, b in (
            ('passed', 'passed'),
            ('passed', 'failed'),
            ('absent', 'passed'),
            ('skipped', 'passed'),
        )
    ]
    assert module[0].count(('a', 'b'), rounds) == dict(tried=3, survived=1)


def test_the_table_hides_no_failure(module):
    rows = [
        dict(done=name, lost='nothing', tried=3, survived=survived)
        for name, survived in (('good', 3), ('bad', 1))
    ]
    rows.append(dict(done='never', lost='nothing', tried=0, survived=0))
    assert module[1].render_faults(dict(faults=rows)).splitlines()[2:] == [
        '| good | 3 | nothing |',
        '| bad | 3 | **not as it must in 2 of 3**; else nothing |',
        '| never | 0 | not tried: this machine cannot |',
    ]


class InTurn:
    """A pool that has no processes."""

    map = staticmethod(map)


def test_setting_epoch_and_thresholds_are_the_best_mean_of_all_seeds(module, monkeypatch):
    weak = sys.modules['reproduction.weak']
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
