"""What the README says is so."""
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.run_tool import ROOT

README = (ROOT / 'README.md').read_text()
RESULTS = sorted((ROOT / 'docs' / 'results').glob('*.json'))


@pytest.fixture(scope='module')
def reproduce():
    return runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))


def test_every_figure_is_the_one_of_its_committed_result(reproduce):
    assert reproduce['update_readme'](README) == README


def test_every_result_is_shown_and_says_how_it_was_measured(reproduce):
    assert RESULTS
    for path in RESULTS:
        result = json.loads(path.read_text())
        assert f'<!-- result: {path.stem} -->' in README
        assert path.stem in reproduce['EXPERIMENTS']
        assert re.fullmatch(r'[0-9a-f]{40}', result['commit'])
        assert result['command'].startswith(f'python tools/reproduce.py {path.stem}')
        assert {'cpu', 'cores', 'torch'} <= result['machine'].keys()


def test_a_changed_figure_is_noticed(reproduce, tmp_path):
    for path in RESULTS:
        (tmp_path / path.name).write_text(path.read_text())
    result = json.loads((tmp_path / 'shapes.json').read_text())
    result['per_seed'][0]['R1@0.5'] -= 5
    (tmp_path / 'shapes.json').write_text(json.dumps(result))
    assert reproduce['update_readme'](README, tmp_path) != README


def test_every_file_it_names_exists():
    named = set(re.findall(r'\b(?:tools|configs|tests|docs|mmn_plugin)/[\w./-]+\.\w+', README))
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_custom_data_example_runs_as_it_stands(tmp_path):
    example = re.search(r'<!-- example: custom data -->(.*?)<!-- end -->', README, re.DOTALL)[1]
    blocks = re.findall(r'```(\w+)\n(.*?)```', example, re.DOTALL)
    assert [language for language, _ in blocks] == ['python', 'python', 'bash']
    for _, text in blocks[:2]:
        (tmp_path / re.match(r'# (\w+\.py):', text)[1]).write_text(text)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    result = subprocess.run(
        ['bash', '-e', '-c', blocks[2][1]], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=dict(os.environ, PATH=path, MMN=str(ROOT)))
    assert result.returncode == 0, result.stdout[-3000:]
    assert (tmp_path / 'work_dirs' / 'my_config' / 'epoch_1.pth').is_file()
