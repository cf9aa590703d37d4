"""The command ``mmn``: what it imports, its errors, and its answers as JSON."""

import json
import os
import subprocess
import sys

import h5py
import pytest
from helpers.run_tool import ROOT, output_of
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import write_grounder, write_scene

from mmn_plugin.cli.main import main
from mmn_plugin.evaluation import read_predictions

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


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['grund'],
            "Error: mmn has no command 'grund': ground, extract, check, eval, library, search",
        ),
        (['eval', 'a.json'], 'Error: the following arguments are required: annotations'),
        (['check', 'a.py', '--examples', 'x'], 'Error: argument --examples: invalid int value'),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(arguments, message):
    output = output_of('mmn', *arguments, code=2)
    assert len(output.splitlines()) == 1
    assert output.startswith(message)


@pytest.fixture
def as_json(capsys):
    """Exit code and answer; the standard output holds nothing else."""

    def run(*arguments):
        bare = [] if '--json' in arguments else ['--json']
        code = main([*map(str, arguments), *bare])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope='module')
def grounder(tmp_path_factory):
    grounder = write_grounder(tmp_path_factory.mktemp('command'))
    grounder.video = write_scene(grounder.folder)
    return grounder


def test_ground_and_extract_as_json(as_json, grounder, tmp_path):
    video, bad = grounder.video, tmp_path / 'bad.mp4'
    model = ['--config', grounder.config, '--checkpoint', grounder.checkpoint, '--device', 'cpu']
    question = ('a red box', *model, '--out', tmp_path / 'out')
    code, answer = as_json('ground', video, '--json', *question)  # it swallows no sentence
    assert code == 0
    assert answer == json.loads((tmp_path / 'out/scene.json').read_text())
    output = output_of('mmn ground', video, *question, '--json', tmp_path / 'answer.json')
    assert 'a red box' in output  # the table, since the answer has a file
    found = read_predictions(tmp_path / 'answer.json')['scene']
    assert found['sentences'][0]['moments'] == answer['videos']['scene']['sentences'][0]['moments']
    bad.write_bytes(b'x' * 99)
    code, report = as_json('extract', video, bad, '--out', tmp_path / 'f.h5')
    assert code == 1
    assert list(report['failures']) == ['bad']
    assert report['speed']['frames_per_second'] > 0
    with h5py.File(tmp_path / 'f.h5') as file:
        assert list(file) == ['scene']


def test_check_and_eval_as_json(as_json, tmp_path):
    corpus = write_corpus(tmp_path / 'corpus', 2, 2)
    config = write_config(tmp_path / 'tiny.py', corpus)
    code, report = as_json('check', config, '--split', 'train')
    assert (code, report['passed']) == (0, True)
    assert list(report['counts']) == ['train']
    annotations = json.loads((corpus / 'train.json').read_text())
    next(iter(annotations.values()))['duration'] = 0.0
    (corpus / 'train.json').write_text(json.dumps(annotations))
    code, report = as_json('check', config, '--split', 'train')
    assert (code, report['passed']) == (1, False)
    assert 'error' in {finding['level'] for finding in report['findings']}
    code, figures = as_json('eval', ANSWERS / 'predictions.json', ANSWERS / 'annotations.json')
    assert code == 0
    assert figures['grounding/R1@0.3'] == pytest.approx(200 / 3)
