"""The tool that measures the losses' memory and time."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'negatives_cost.py'
SMALL = [
    '--videos',
    '100',
    '1600',
    '--num-clips',
    '16',
    '--pooling-counts',
    '15',
    '--channels',
    '32',
]

pytestmark = pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason='needs Linux to measure a peak'
)


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('negatives_cost', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(tool, path, *more):
    """Extra memory of many videos beyond that of few, and what all their similarities take."""
    assert tool.main([*SMALL, *more, '--json', str(path)]) == 0
    few, many = json.loads(path.read_text())
    assert many['held_mb'] > 8 * few['held_mb']
    return many['extra_mb'] - few['extra_mb'], many['dense_mb'] - few['dense_mb']


@pytest.mark.parametrize('more', [[], ['--gathered']])
def test_memory_stays_flat_while_negatives_grow(tool, more, tmp_path, capsys):
    growth, dense = measured(tool, tmp_path / 'cost.json', *more, '--chunk-elements', str(2**17))
    assert growth < dense / 4
    assert '1,600' in capsys.readouterr().out


def test_all_similarities_in_one_chunk_are_seen_to_take_memory(tool, tmp_path):
    growth, dense = measured(tool, tmp_path / 'cost.json', '--chunk-elements', str(2**30))
    assert growth > dense


FREED_BY_THE_PARENT = """
import ctypes, sys
libc = ctypes.CDLL(None)
for option in (-1, -3):  # blocks of any size come from the heap, and stay there when freed
    libc.mallopt(option, 2**30)
import torch
blocks = [torch.ones(2**22) for _ in range(20)]
last = torch.ones(10**5)
del blocks
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import negatives_cost
negatives_cost.main(sys.argv[3:])
"""


def test_memory_that_the_parent_process_had_freed_hides_nothing(tmp_path):
    result = tmp_path / 'cost.json'
    subprocess.run(
        [
            sys.executable,
            '-c',
            FREED_BY_THE_PARENT,
            TOOL.parents[2],
            TOOL.parent,
            *SMALL,
            '--chunk-elements',
            str(2**30),
            '--json',
            result,
        ],
        check=True,
    )
    few, many = json.loads(result.read_text())
    assert many['extra_mb'] - few['extra_mb'] > many['dense_mb'] - few['dense_mb']


def test_memory_that_grows_fails(tool, capsys):
    rows = [
        dict(videos=8, extra_mb=10.0, dense_mb=20.0),
        dict(videos=80, extra_mb=20.0, dense_mb=99.0),
    ]
    args = tool.parse_args([])
    assert tool.verdict(args, rows) == 'extra memory grew from 10 MB at 8 videos to 20 MB at 80'
    rows[1]['extra_mb'] = 12.0
    assert tool.verdict(args, rows) == ''
