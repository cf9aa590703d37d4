"""QVHighlights' config from training to a submission that our evaluator scores."""

import json

import pytest
from helpers.run_tool import output_of
from helpers.tiny_qvhighlights import (
    FILES,
    write_lines,
    write_qvhighlights,
    write_qvhighlights_config,
)

from mmn_plugin.evaluation import read_predictions


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Folder with a corpus, in which one query does not occur, a config and a training."""
    folder = tmp_path_factory.mktemp('qvhighlights')
    corpus = write_qvhighlights(folder / 'corpus')
    path = corpus / f'{FILES["train"]}.jsonl'
    lines = list(map(json.loads, path.read_text().splitlines()))
    lines[3].update(relevant_windows=[], relevant_clip_ids=[], saliency_scores=[])
    write_lines(path, lines)
    config = write_qvhighlights_config(folder / 'tiny.py', corpus)
    output_of('mmn check', config)
    output_of('train.py', config, '--work-dir', folder / 'run')
    return folder


def test_a_test_after_training_gives_the_figures_of_its_submission(trained, tmp_path):
    (best,) = (trained / 'run').glob('best_qvhighlights_MR-full-mAP_epoch_*.pth')
    answers, scores = tmp_path / 'answers.jsonl', tmp_path / 'scores.json'
    options = ('--work-dir', tmp_path / 'test', '--submission', answers)
    output_of('test.py', trained / 'tiny.py', best, *options)
    truth = trained / 'corpus' / f'{FILES["test"]}.jsonl'
    files = (answers, truth, '--format', 'qvhighlights', '--json', scores)
    assert 'note' not in output_of('mmn eval', *files)
    figures = json.loads(next(tmp_path.glob('test/*/*.json')).read_text().splitlines()[-1])
    brief = json.loads(scores.read_text())['brief']
    assert {'MR-full-R1@0.5', 'MR-full-mAP', 'HL-min-VeryGood-Hit1'} < brief.keys()
    assert {name: figures[f'qvhighlights/{name}'] for name in brief} == brief
    assert figures['qvhighlights/num_queries'] == 6
    asked = list(map(json.loads, truth.read_text().splitlines()))
    for line, one in zip(asked, map(json.loads, answers.read_text().splitlines()), strict=True):
        assert (one['qid'], one['vid']) == (line['qid'], line['vid'])
        assert len(one['pred_saliency_scores']) == line['duration'] // 2
        windows = one['pred_relevant_windows']
        assert 0 < len(windows) <= 10
        assert all(0 <= start < end <= line['duration'] for start, end, _ in windows)
        # the clips of highest saliency are those of the first window
        assert max(one['pred_saliency_scores']) == windows[0][2]


def test_a_file_without_truth_can_be_answered(trained, tmp_path):
    path = tmp_path / 'queries.jsonl'
    lines = map(json.loads, (trained / f'corpus/{FILES["test"]}.jsonl').read_text().splitlines())
    kept = ({key: line[key] for key in ('qid', 'query', 'vid', 'duration')} for line in lines)
    path.write_text(''.join(json.dumps(line) + '\n' for line in kept))
    answers, predictions = tmp_path / 'answers.jsonl', tmp_path / 'predictions.json'
    output = output_of(
        'test.py {} {} --work-dir {} --submission {} --dump {} --cfg-options {}',
        trained / 'tiny.py',
        trained / 'run' / 'epoch_2.pth',
        tmp_path / 'test',
        answers,
        predictions,
        f'test_dataloader.dataset.ann_file={path}',
    )
    assert 'the queries have no truth: there are no figures' in output
    lines = list(map(json.loads, answers.read_text().splitlines()))
    assert len(lines) == 6
    windows = {
        (name, one['sentence']): one['moments']
        for name, video in read_predictions(predictions).items()
        for one in video['sentences'].values()
    }
    for line in lines:
        found = [window[:2] for window in line['pred_relevant_windows']]
        assert found == windows[line['vid'], line['query']]


def test_a_validation_without_the_figure_of_save_best_loses_no_training(trained, tmp_path):
    path = tmp_path / 'highlights.jsonl'
    text = (trained / f'corpus/{FILES["val"]}.jsonl').read_text()
    lines = list(map(json.loads, text.splitlines()))
    for line in lines:
        del line['relevant_windows']
    write_lines(path, lines)
    output = output_of(
        'train.py {} --work-dir {} --cfg-options {}',
        trained / 'tiny.py',
        tmp_path / 'run',
        f'val_dataloader.dataset.ann_file={path}',
    )
    assert "save_best='qvhighlights/MR-full-mAP' is not among the figures of this" in output
    assert 'qvhighlights/HL-min-Good-mAP' in output
    assert (tmp_path / 'run' / 'epoch_2.pth').is_file()
    assert not [*(tmp_path / 'run').glob('best_*')]


def test_a_submission_of_another_kind_of_file_is_refused_before_the_test(trained, tmp_path):
    output = output_of(
        'test.py',
        trained / 'tiny.py',
        trained / 'run' / 'epoch_2.pth',
        *('--work-dir', tmp_path / 'test', '--submission', tmp_path / 'answers.json'),
        code=1,
    )
    assert 'answers.json must end in .jsonl' in output.splitlines()[-1]
