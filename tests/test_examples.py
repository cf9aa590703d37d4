"""The downstream project of tests/examples, which docs/custom_components.md shows, works."""

import json
import runpy
import shutil
import sys

import pytest
from helpers.run_tool import ROOT, output_of

from mmn_plugin.apis import GroundingInferencer

CONFIG, CHECKPOINT = 'my_config.py', 'work_dirs/my_config/epoch_1.pth'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project outside the checkout, with its data; the current folder."""
    folder = tmp_path / 'project'
    shutil.copytree(ROOT / 'tests/examples', folder, ignore=shutil.ignore_patterns('__pycache__'))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    runpy.run_path('make_data.py')
    yield folder
    assert sys.modules['my_project'].__file__.startswith(str(folder))


def test_a_downstream_project_trains_tests_and_answers_with_parts_of_its_own(project):
    output_of('train.py', CONFIG)
    output_of('test.py', CONFIG, CHECKPOINT, '--dump', 'answers.json')
    answers = json.loads((project / 'answers.json').read_text())['videos']
    assert len(answers) == 4
    for video in answers.values():
        assert [len(sentence['moments']) for sentence in video['sentences']] == [5, 5]

    sentence = answers['test_0']['sentences'][0]
    inferencer = GroundingInferencer(CONFIG, CHECKPOINT)
    (answer,) = inferencer('data/mine/features.h5::test_0', [sentence['sentence']], duration=30.0)
    assert answer['moments'] == sentence['moments']
    assert answer['scores'] == pytest.approx(sentence['scores'], rel=1e-5)
