import importlib.util
from pathlib import Path

import pytest
from helpers.run_tool import run_tool

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'dataset_cost.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('dataset_cost', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_activitynet_stays_within_the_bounds(tool, shared, capsys):
    ann_file = str(shared / 'data' / 'annotations' / 'activitynet' / 'train.json')
    # the bound of the machines that it was set for; a busy one takes longer
    assert tool.main([ann_file, '--feature-key', 'c3d_features', '--max-seconds', '600']) == 0
    assert '10,009' in capsys.readouterr().out


def test_a_bound_that_is_exceeded_fails(tool, shared):
    ann_file = str(shared / 'data' / 'annotations' / 'tacos' / 'val.json')
    assert tool.main([ann_file, '--max-seconds', '0']) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'ann.json does not exist'),
        ('{', 'ann.json'),
        ('[]', 'ann.json'),
        ('{"video": 3}', 'ann.json'),
        ('{"video": {}}', 'video'),
    ],
)
def test_annotations_that_cannot_be_used_are_one_message(tmp_path, capfd, content, message):
    if content is not None:
        (tmp_path / 'ann.json').write_text(content)
    code, output = run_tool('analysis_tools/dataset_cost.py', tmp_path / 'ann.json')
    assert code == 1
    assert output.startswith('Error: ')
    assert message in output
    assert 'Traceback' not in output + ''.join(capfd.readouterr())


def test_absent_features_are_one_message(tmp_path):
    (tmp_path / 'ann.json').write_text(
        '{"video": {"duration": 9, "timestamps": [[1, 2]], "sentences": ["a box"]}}'
    )
    code, output = run_tool(
        'analysis_tools/dataset_cost.py',
        tmp_path / 'ann.json',
        '--features',
        tmp_path / 'absent.h5',
    )
    assert code == 1
    assert 'absent.h5' in output
    assert 'Traceback' not in output
