import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'dataset_cost.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('dataset_cost', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_activitynet_stays_within_the_bounds(tool, shared, capsys):
    ann_file = str(shared / 'data' / 'annotations' / 'activitynet' / 'train.json')
    assert tool.main([ann_file, '--feature-key', 'c3d_features']) == 0
    assert '10,009' in capsys.readouterr().out


def test_a_bound_that_is_exceeded_fails(tool, shared):
    ann_file = str(shared / 'data' / 'annotations' / 'tacos' / 'val.json')
    assert tool.main([ann_file, '--max-seconds', '0']) == 1
