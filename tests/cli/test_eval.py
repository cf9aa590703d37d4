import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.run_tool import run_tool

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'tests/data/predictions'

sys.path.insert(0, str(ROOT / 'tests/evaluation'))
from made_up_results import sample_of  # noqa: E402

from mmn_plugin.cli.main import main  # noqa: E402
from mmn_plugin.evaluation import DumpPredictions, GroundingMetric  # noqa: E402
from mmn_plugin.structures.annotations import read_annotations  # noqa: E402


@pytest.fixture
def tool():
    return lambda arguments: main(['eval', *arguments])


def sample_arguments(*more):
    return [str(DATA / 'predictions.json'), str(DATA / 'annotations.json'), *more]


@pytest.mark.parametrize('name', ['tacos', 'charades_sta'])
def test_figures_from_the_file_equal_the_ones_in_the_loop_exactly(shared, tmp_path, name):
    annotations = shared / f'data/annotations/{name}/test.json'
    videos = read_annotations(annotations)
    chance = dict(num_clips=16, pooling_counts=[15], iou_threshold=0.5)
    metrics = [GroundingMetric(chance=chance), DumpPredictions(str(tmp_path / 'pred.json'))]
    for metric in metrics:
        metric.process(None, [sample_of(video).to_dict() for video in videos])
    in_loop, _ = (metric.evaluate(len(videos)) for metric in metrics)
    line = (
        'mmn eval {}/pred.json {} --chance-clips 16 --chance-counts 15 --chance-nms 0.5 --json {}'
    )
    out = tmp_path / 'out' / 'figures.json'
    assert run_tool(line, tmp_path, annotations, out)[0] == 0
    assert json.loads(out.read_text()) == in_loop


def test_sample_files_are_scored_without_mmaction_and_transformers(tmp_path):
    code = (
        'import sys, mmn\n'
        'try: mmn.main()\n'
        'except SystemExit as end: assert end.code == 0, end.code\n'
        'assert not {"mmaction", "transformers", "mmn_plugin.models"} & set(sys.modules)'
    )
    arguments = sample_arguments('--iou', '0.3', '0.5', '--top-n', '1', '2')
    found = subprocess.run(
        [sys.executable, '-c', code, 'eval', *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert found.returncode == 0, found.stderr
    [row] = [line.split() for line in found.stdout.splitlines() if line.split()[:1] == ['all']]
    assert row == ['all', '3', '66.67', '33.33', '100.00', '66.67', '50.00', '83.33', '37.78']


def test_settings_of_the_command_line_reach_the_figures(tmp_path):
    (tmp_path / 'subsets.json').write_text(json.dumps({'unseen': {'garden_02': [0]}}))
    out = tmp_path / 'figures.json'
    options = (
        '--duration-buckets 0.3 --duration-unit share --iou 0.1 --subsets {}/subsets.json --json {}'
    )
    line = f'mmn eval {{}}/predictions.json {{}}/annotations.json {options}'
    assert run_tool(line, DATA, DATA, tmp_path, out)[0] == 0
    figures = json.loads(out.read_text())
    assert figures['grounding/unseen/R1@0.1'] == 100
    assert figures['grounding/0-0.3_of_video/num_sentences'] == 1
    assert 'grounding/R1@0.5' not in figures


def test_predictions_that_are_not_annotated_are_noted(tmp_path, tool, capsys):
    annotations = json.loads((DATA / 'annotations.json').read_text())
    del annotations['garden_02']
    (tmp_path / 'ann.json').write_text(json.dumps(annotations))
    assert tool([str(DATA / 'predictions.json'), str(tmp_path / 'ann.json')]) == 0
    notes = capsys.readouterr().err
    assert '1 of the 2 predicted videos are not annotated' in notes
    assert 'R@5 is no more than R@3' in notes


def test_bad_files_end_in_one_message_that_names_them(tmp_path, tool, capsys):
    (tmp_path / 'pred.json').write_text('{}')
    out = tmp_path / 'figures.json'
    with pytest.raises(SystemExit, match='1'):
        tool([str(tmp_path / 'pred.json'), str(DATA / 'annotations.json'), '--json', str(out)])
    message = capsys.readouterr().err
    assert message.count('\n') == 1
    assert message.startswith('Error: ')
    assert 'pred.json is not a file of predictions' in message
    assert not out.exists()
    with pytest.raises(SystemExit, match='1'):
        tool([str(DATA / 'predictions.json'), str(tmp_path / 'absent.json')])
    assert 'absent.json does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('place', 'value'),
    [('moments', [[0, 10**400]]), ('moments', [[0, 1e300]]), ('scores', [10**400, 0])],
)
def test_a_number_too_large_is_named(tmp_path, tool, capsys, place, value):
    predictions = json.loads((DATA / 'predictions.json').read_text())
    video, content = next(iter(predictions['videos'].items()))
    content['sentences'][0][place] = value
    (tmp_path / 'pred.json').write_text(json.dumps(predictions))
    with pytest.raises(SystemExit, match='1'):
        tool([str(tmp_path / 'pred.json'), str(DATA / 'annotations.json')])
    message = capsys.readouterr().err
    assert message.count('\n') == 1
    assert f'video {video!r}, sentence 0' in message
    assert 'finite numbers' in message


def test_half_a_chance_level_is_refused(tool, capsys):
    with pytest.raises(SystemExit):
        tool(sample_arguments('--chance-clips', '16'))
    assert 'needs --chance-clips, --chance-counts and --chance-nms' in capsys.readouterr().err
