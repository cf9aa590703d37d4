"""The tool that measures the losses' memory and time."""
import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'negatives_cost.py'
SMALL = ['--videos', '24', '384', '--num-clips', '8', '--pooling-counts', '7', '--channels', '64']

pytestmark = pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason='needs Linux to measure a peak')


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('negatives_cost', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('more', [[], ['--gathered']])
def test_memory_stays_flat_while_negatives_grow(tool, more, tmp_path, capsys):
    assert tool.main([*SMALL, *more, '--chunk-elements', '20000',
                      '--json', str(tmp_path / 'cost.json')]) == 0
    few, many = json.loads((tmp_path / 'cost.json').read_text())
    # What is held grows with the videos, and the similarities do; memory for them does not.
    assert many['held_mb'] > 5 * few['held_mb']
    assert many['dense_mb'] == 16 * few['dense_mb']
    assert abs(many['extra_mb'] - few['extra_mb']) < 1
    assert '384' in capsys.readouterr().out


def test_memory_that_grows_fails(tool, capsys):
    rows = [dict(videos=8, extra_mb=10., dense_mb=20.), dict(videos=80, extra_mb=20., dense_mb=99.)]
    args = tool.parse_args([])
    assert tool.verdict(args, rows) == 'extra memory grew from 10 MB at 8 videos to 20 MB at 80'
    rows[1]['extra_mb'] = 12.
    assert tool.verdict(args, rows) == ''
