"""`mmn eval` on files of predictions."""

import json
import os
import subprocess
import sys

import pytest
from helpers.made_up_results import annotations_of, sample_of, samples_of_windows
from helpers.run_tool import ROOT, output_of, run_tool

from mmn_plugin.evaluation import DumpPredictions, GroundingMetric
from mmn_plugin.structures.annotations import read_annotations

DATA = ROOT / 'tests/data/predictions'
PREDICTIONS, ANNOTATIONS = DATA / 'predictions.json', DATA / 'annotations.json'


def test_figures_from_the_file_equal_the_ones_in_the_loop_exactly(shared, tmp_path):
    annotations = shared / 'data/annotations/tacos/test.json'
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


@pytest.mark.parametrize('presence', [True, False])
def test_figures_of_none_or_several_windows_equal_the_ones_in_the_loop_exactly(tmp_path, presence):
    samples = samples_of_windows(presence=presence)
    subsets = {'first': {video.video_id: [0] for video, _ in samples}}
    for name, content in (('ann', annotations_of(samples)), ('subsets', subsets)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    settings = dict(subsets=subsets, presence_threshold=0.45)
    metrics = [GroundingMetric(**settings), DumpPredictions(str(tmp_path / 'pred.json'))]
    for metric in metrics:
        metric.process(None, [sample.to_dict() for _, sample in samples])
    in_loop, _ = (metric.evaluate(len(samples)) for metric in metrics)
    line = 'mmn eval pred.json ann.json --subsets subsets.json --presence-threshold 0.45 --json'
    found = run_without_models(tmp_path, [*line.split()[1:], 'out.json'])
    assert json.loads((tmp_path / 'out.json').read_text()) == in_loop
    assert {'grounding/first/absent/AUROC', 'grounding/10-30s/mAP'} <= in_loop.keys()
    source = 'as the predictions give it' if presence else 'the score of their best moment'
    assert f'note: presence of sentences: {source}' in found.stderr
    (absent,) = (line for line in found.stdout.splitlines() if line.split()[:1] == ['absent'])
    assert f'{in_loop["grounding/absent/AUROC"]:.2f}' in absent


def run_without_models(folder, *lines):
    """Output of command lines, in one process that must not load what models need."""
    code = (
        'import sys, mmn\n'
        'for line in eval(sys.argv[1]):\n'
        '    sys.argv[1:] = line\n'
        '    try: mmn.main()\n'
        '    except SystemExit as end: assert end.code == 0, end.code\n'
        'assert not {"mmaction", "transformers", "mmn_plugin.models"} & set(sys.modules)'
    )
    found = subprocess.run(
        [sys.executable, '-c', code, repr([[str(word) for word in line] for line in lines])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert found.returncode == 0, found.stderr
    return found


def test_sample_files_are_scored_without_mmaction_and_transformers(tmp_path):
    truth = dict(qid=1, vid='a', duration=20, relevant_windows=[[0, 10]])
    predicted = dict(qid=1, pred_relevant_windows=[[0, 8, 0.5]])
    for name, line in (('truth', truth), ('pred', predicted)):
        (tmp_path / f'{name}.jsonl').write_text(json.dumps(line))
    lines = [
        ['eval', PREDICTIONS, ANNOTATIONS, '--iou', '0.3', '0.5', '--top-n', '1', '2'],
        ['eval', 'pred.jsonl', 'truth.jsonl', '--format', 'qvhighlights'],
    ]
    found = run_without_models(tmp_path, *lines)
    [row] = [line.split() for line in found.stdout.splitlines() if line.split()[:1] == ['all']]
    assert row == ['all', '3', '66.67', '33.33', '100.00', '66.67', '50.00', '83.33', '37.78']
    assert ['MR-short-mAP', '70.00'] in [line.split() for line in found.stdout.splitlines()]


def test_the_published_figures_of_qvhighlights_are_met_to_every_digit(shared, tmp_path):
    golden, annotations = (
        shared / name / 'qvhighlights' for name in ('golden', 'data/annotations')
    )
    output = output_of(
        'mmn eval {}/sample_val_preds.jsonl {}/highlight_val_release.jsonl --format qvhighlights '
        '--json {}/figures.json',
        golden,
        annotations,
        tmp_path,
    )
    expected = json.loads((golden / 'sample_val_preds_metrics_raw.json').read_text())
    assert json.loads((tmp_path / 'figures.json').read_text()) == expected
    assert 'note: predicted windows that reach beyond the video, scored as they are: 2' in output


def test_settings_of_the_command_line_reach_the_figures_and_what_is_odd_is_noted(tmp_path):
    annotations = json.loads(ANNOTATIONS.read_text())
    del annotations['garden_02']
    for name, content in (('ann', annotations), ('subsets', {'unseen': {'garden_02': [0]}})):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    options = '--duration-buckets 0.3 --duration-unit share --iou 0.1 --subsets {}/subsets.json'
    output = output_of(f'mmn eval {{}} {{}} {options} --json', PREDICTIONS, ANNOTATIONS, tmp_path)
    figures = json.loads(output[output.index('{') : output.rindex('}') + 1])
    assert figures['grounding/unseen/R1@0.1'] == 100
    assert figures['grounding/0-0.3_of_video/num_sentences'] == 1
    assert 'grounding/R1@0.5' not in figures
    output = output_of('mmn eval', PREDICTIONS, tmp_path / 'ann.json')
    assert '1 of the 2 predicted videos are not annotated' in output
    assert 'R@5 is no more than R@3' in output


@pytest.mark.parametrize(
    ('changes', 'options', 'messages'),
    [
        (None, [], ['pred.json is not a file of predictions']),
        ({}, [DATA / 'absent.json'], ['absent.json does not exist']),
        ({}, [ANNOTATIONS, '--iou', '30'], ['iou_thrs=[30.0]']),  # and no word of the files
        (dict(moments=[[0, 10**400]]), [], ["'kitchen_01', sentence 0", 'finite numbers']),
        (dict(moments=[[0, 1e300]]), [], ["'kitchen_01', sentence 0", 'finite numbers']),
        (dict(scores=[10**400, 0]), [], ["'kitchen_01', sentence 0", 'finite numbers']),
        (dict(sentence='x'), [], ['pred.json against', "'kitchen_01': sentence 0 is 'x' in the"]),
    ],
)
def test_bad_files_end_in_one_message_that_names_them(tmp_path, changes, options, messages):
    predictions = json.loads(PREDICTIONS.read_text())
    content = predictions['videos']['kitchen_01']
    content['sentences'][0].update(changes or {})
    (tmp_path / 'pred.json').write_text('{}' if changes is None else json.dumps(predictions))
    out = tmp_path / 'figures.json'
    output = output_of(
        'mmn eval', tmp_path / 'pred.json', *(options or [ANNOTATIONS]), '--json', out, code=1
    )
    assert output.count('\n') == 1
    assert output.startswith('Error: ')
    for message in messages:
        assert message in output
    assert not out.exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ('pred.jsonl --top-n 1 --format qvhighlights', '--format qvhighlights does not take --top'),
        ('pred.jsonl --shared-only', '--shared-only needs'),
        ('pred.json --chance-clips 16', 'needs --chance-clips, --chance-counts and --chance-nms'),
        ('pred.json --num-frames 8', '--num-frames needs --format answers'),
        ('pred.jsonl', 'pred.jsonl is of which format? --format qvhighlights or answers'),
    ],
)
def test_options_that_are_of_no_use_or_missing_are_named(options, message):
    assert message in output_of(f'mmn eval {options}', ANNOTATIONS, code=2)


def test_a_file_that_is_not_there_is_one_line():
    output = output_of('mmn eval pred.jsonl truth.jsonl --format qvhighlights', code=1)
    assert output == 'Error: pred.jsonl does not exist\n'


def test_answers_of_language_models_are_read_and_scored_without_mmaction(tmp_path):
    given = [
        ('kitchen_01', 'a person opens the fridge', 'From 2.5 s to 10 s.'),
        ('kitchen_01', 'then she washes the dishes', 'In scene 3-5.'),
        ('garden_02', 'the dog digs a hole', 'It does not occur.'),
    ]
    keys = ('video_id', 'sentence', 'answer')
    lines = [json.dumps(dict(zip(keys, line, strict=True))) for line in given]
    (tmp_path / 'x.jsonl').write_text('\n'.join(lines))
    options = ['--format', 'answers', '--json', 'out.json', '--dump', 'pred.json']
    found = run_without_models(tmp_path, ['eval', 'x.jsonl', ANNOTATIONS, *options])
    assert (
        "unread, video 'kitchen_01', 'then she washes the dishes': 'In scene 3-5.'" in found.stderr
    )
    assert '3 sentences: 1 answered with times, 1 as absent, 1 unread, 0 without' in found.stdout
    figures = json.loads((tmp_path / 'out.json').read_text())
    assert figures['grounding/R1@0.5'] == pytest.approx(100 / 3)
    assert figures['grounding/read/R1@0.5'] == 50
    assert figures['grounding/read/num_sentences'] == 2
    assert figures['answers/unread'] == [dict(zip(keys, given[1], strict=True))]
    content = json.loads((tmp_path / 'pred.json').read_text())
    readings = [one.get('reading') for one in content['videos']['kitchen_01']['sentences']]
    assert readings == ['times', 'unread', 'unread']  # the second has no answer
    # What was read is scored again as any predictions
    again = tmp_path / 'again.json'
    assert run_tool('mmn eval', tmp_path / 'pred.json', ANNOTATIONS, '--json', again)[0] == 0
    again = json.loads(again.read_text())
    assert again == {name: figures[name] for name in again}


def test_answers_that_say_absent_are_right_where_the_sentence_does_not_occur(tmp_path):
    timestamps = [[[1, 5], [11, 15]], [], [], [7, 9], []]
    texts = ['a dog runs', 'a cat sits', 'it rains', 'a man waves', 'it snows']
    given = ['From 11 s to 15 s.', 'It does not occur.', '3 s to 4 s', 'It does not occur.']
    content = {'v': dict(duration=20, timestamps=timestamps, sentences=texts)}
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    lines = [
        json.dumps(dict(video_id='v', sentence=text, answer=answer))
        for text, answer in zip(texts, given, strict=False)  # the last is not answered
    ]
    (tmp_path / 'x.jsonl').write_text('\n'.join(lines))
    options = ['--format', 'answers', '--json', 'out.json', '--dump', 'pred.json']
    again = ['eval', 'pred.json', 'ann.json', '--json', 'again.json']
    found = run_without_models(tmp_path, ['eval', 'x.jsonl', 'ann.json', *options], again)
    note = 'note: 2 sentences have moments but neither presence nor scores: no AUROC'
    assert note in found.stderr
    figures = json.loads((tmp_path / 'out.json').read_text())
    expected = {
        'R1@0.7': 50,
        'mAP@0.5': 25,  # of the first sentence one of two windows
        'num_sentences': 2,
        'absent/num_sentences': 3,
        'absent/rejected': 100 / 3,
        'absent/kept': 50,
        'absent/accuracy': 125 / 3,
        'read/absent/rejected': 50,
        'read/absent/num_sentences': 2,
    }
    found = {name: figures[f'grounding/{name}'] for name in expected}
    assert found == pytest.approx(expected)
    assert (figures['answers/num_absent'], figures['answers/num_missing']) == (2, 1)
    again = json.loads((tmp_path / 'again.json').read_text())
    assert again == {name: figures[name] for name in again}


@pytest.mark.parametrize(
    ('options', 'replaced'),
    [
        ('--dump {ann}', 'ann'),
        ('--json {ann}', 'ann'),
        ('--json {subsets} --subsets {subsets}', 'subsets'),
        ('--json {out} --dump {out}', 'out'),
    ],
)
def test_no_file_of_a_command_replaces_another(tmp_path, options, replaced):
    paths = {name: tmp_path / f'{name}.json' for name in ('ann', 'subsets', 'out')}
    paths['ann'].write_bytes(ANNOTATIONS.read_bytes())
    paths['subsets'].write_text('{}')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    line = f'mmn eval answers.jsonl {paths["ann"]} --format answers {options.format(**paths)}'
    output = output_of(line, code=2)
    assert f'{paths[replaced]} would replace another file of this command' in output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize('format', ['', '--format answers'])
@pytest.mark.parametrize(
    'entry',
    [
        dict(duration=9, timestamps=[], sentences=[]),
        dict(duration=9, timestamps=[[5, 5]], sentences=['a person opens the fridge']),
    ],
)
def test_annotations_without_a_usable_sentence_are_named(tmp_path, format, entry):
    truth, answers = tmp_path / 'ann.json', tmp_path / 'answers.jsonl'
    truth.write_text(json.dumps({'kitchen_01': entry}))
    line = dict(video_id='kitchen_01', sentence='a person opens the fridge', answer='1 s to 2 s')
    answers.write_text(json.dumps(line))
    read = answers if format else PREDICTIONS
    output = output_of(f'mmn eval {{}} {{}} {format}', read, truth, code=1)
    assert output.startswith(f'Error: {truth} has no usable sentence')
