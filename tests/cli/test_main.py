"""The command ``mmn``: what it imports, its errors, and its answers as JSON."""

import json
import os
import subprocess
import sys

import h5py
import pytest
from helpers.run_tool import ROOT, run_tool
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import write_grounder, write_scene

from mmn_plugin.evaluation import read_predictions
from mmn_plugin.features import probe_video

ANSWERS = ROOT / 'tests/data/predictions'


def in_new_process(code, *arguments):
    """What Python code prints; the arguments are those of the command."""
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    ).stdout


def test_help_imports_no_library():
    code = (
        'import sys, mmn\n'
        'try: mmn.main()\n'
        'except SystemExit as end: assert end.code == 0\n'
        'print({"torch", "numpy", "mmengine", "mmaction", "transformers"} & set(sys.modules))'
    )
    output = in_new_process(code, '--help')
    assert output.endswith('set()\n')
    for name in ('ground', 'extract', 'check', 'eval', 'web'):
        assert f'\n  {name}' in output


def test_custom_imports_register_components_also_after_the_command_was_loaded():
    code = (
        'import os, mmn\n'
        'from mmengine.utils import import_modules_from_strings\n'
        'import_modules_from_strings(imports=["mmn_plugin"])\n'
        'from mmaction.registry import METRICS, MODELS\n'
        'print([r.get(n).__name__ for r, n in ((MODELS, "MMN"), (METRICS, "GroundingMetric"))])\n'
        'print("MMN_ON_DEMAND" in os.environ)'
    )
    assert in_new_process(code).splitlines()[-2:] == ["['MMN', 'GroundingMetric']", 'False']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['grund'], "Error: mmn has no command 'grund': ground, extract, check, eval, web"),
        (['eval', 'a.json'], 'Error: the following arguments are required: annotations'),
        (['check', 'a.py', '--examples', 'x'], 'Error: argument --examples: invalid int value'),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, message):
    code, output = run_tool('mmn', *arguments)
    assert code == 2
    assert len(output.splitlines()) == 1
    assert output.startswith(message)


def as_json(capsys, *arguments):
    """Exit code and answer; the standard output holds nothing else."""
    from mmn_plugin.cli.main import main

    code = main([*map(str, arguments), '--json'])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('command'))
    grounder.video = write_scene(grounder.folder)
    return grounder


def question(grounder, *arguments):
    model = ('--config', grounder.config, '--checkpoint', grounder.checkpoint, '--device', 'cpu')
    return ('ground', grounder.video, 'a red box', *model, *arguments)


def test_ground_as_json_is_the_file_of_predictions(grounder, tmp_path, capsys):
    code, answer = as_json(capsys, *question(grounder, '--out', tmp_path / 'out'))
    assert code == 0
    assert answer == json.loads((tmp_path / 'out/scene.json').read_text())
    code, output = run_tool('mmn', *question(grounder, '--json', tmp_path / 'answer.json'))
    assert code == 0
    assert 'a red box' in output  # the table, since the answer has a file
    found = read_predictions(tmp_path / 'answer.json')['scene']
    assert found['sentences'][0]['moments'] == answer['videos']['scene']['sentences'][0]['moments']


def test_a_bare_json_does_not_swallow_the_sentence(grounder, capsys):
    from mmn_plugin.cli.main import main

    name, video, *rest = map(str, question(grounder))
    assert main([name, video, '--json', *rest]) == 0
    sentences = json.loads(capsys.readouterr().out)['videos']['scene']['sentences']
    assert [sentence['sentence'] for sentence in sentences] == ['a red box']


def test_clips_are_longer_by_the_padding_where_the_video_is(grounder, tmp_path):
    options = ('--clips', 1, '--threshold', -1)
    for name, pad in (('exact', 0), ('padded', 2.5)):
        code, output = run_tool(
            'mmn', *question(grounder, *options, '--out', tmp_path / name, '--pad', pad)
        )
        assert code == 0, output
    exact, padded = (
        probe_video(tmp_path / name / 'scene_1_1.mp4').duration for name in ('exact', 'padded')
    )
    sentence = read_predictions(tmp_path / 'exact/scene.json')['scene']['sentences'][0]
    start, end = sentence['moments'][0]
    duration = probe_video(grounder.video).duration
    assert padded - exact == pytest.approx(min(start, 2.5) + min(duration - end, 2.5), abs=0.15)


def test_extract_as_json_is_the_report(grounder, tmp_path, capsys):
    (tmp_path / 'bad.mp4').write_bytes(b'x' * 99)
    code, report = as_json(
        capsys, 'extract', grounder.video, tmp_path / 'bad.mp4', '--out', tmp_path / 'f.h5'
    )
    assert code == 1
    assert list(report['failures']) == ['bad']
    with h5py.File(tmp_path / 'f.h5') as file:
        assert list(file) == ['scene']


def test_check_as_json_is_its_findings(tmp_path, capsys):
    corpus = write_corpus(tmp_path / 'corpus', 2, 2)
    config = write_config(tmp_path / 'tiny.py', corpus)
    code, report = as_json(capsys, 'check', config, '--split', 'train')
    assert (code, report['passed']) == (0, True)
    assert list(report['counts']) == ['train']
    annotations = json.loads((corpus / 'train.json').read_text())
    next(iter(annotations.values()))['duration'] = 0.0
    (corpus / 'train.json').write_text(json.dumps(annotations))
    code, report = as_json(capsys, 'check', config, '--split', 'train')
    assert (code, report['passed']) == (1, False)
    assert 'error' in {finding['level'] for finding in report['findings']}


def test_eval_as_json_is_its_figures(capsys):
    code, figures = as_json(
        capsys, 'eval', ANSWERS / 'predictions.json', ANSWERS / 'annotations.json'
    )
    assert code == 0
    assert figures['grounding/R1@0.3'] == pytest.approx(200 / 3)
