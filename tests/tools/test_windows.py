"""A test on sentences that are true in none, one or several windows."""

import json

import torch
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_grounder import save_checkpoint

from mmn_plugin.evaluation import read_predictions


def with_windows(path):
    """Give the sentences of an annotation file none, one or two windows in turn."""
    content, number = json.loads(path.read_text()), 0
    for video in content.values():
        middle = video['duration'] / 2
        for place, (start, end) in enumerate(video['timestamps']):
            two = [[start, end], [middle, middle + 3]]
            video['timestamps'][place] = [[], [start, end], two][number % 3]
            number += 1
    path.write_text(json.dumps(content))


def test_mmn_is_trained_on_them_and_resumes(tmp_path):
    corpus = write_corpus(tmp_path / 'corpus')
    with_windows(corpus / 'train.json')
    extra = "model['head'] = dict(positives='sentence')"
    config = write_config(tmp_path / 'tiny.py', corpus, extra=extra)
    workers = 'train_dataloader.num_workers=1 train_dataloader.persistent_workers=True'
    line = f'train.py {{}} --work-dir {{}} --cfg-options {workers} train_cfg.max_epochs={{}}'
    output_of(line, config, tmp_path / 'whole', 2)
    output_of(line, config, tmp_path / 'halves', 1)
    output_of(line.replace('{} --work', '{} --resume --work'), config, tmp_path / 'halves', 2)
    whole, halves = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)['state_dict']
        for name in ('whole', 'halves')
    )
    assert all(torch.equal(value, halves[name]) for name, value in whole.items())
    assert all(value.isfinite().all() for value in whole.values())


def test_a_method_that_needs_windows_says_so_where_training_has_none(tmp_path):
    config = write_config(tmp_path / 'tiny.py', write_corpus(tmp_path / 'corpus', train=2))
    weak = 'train_dataloader.dataset.weak=True'
    line = 'train.py {} --work-dir {} --cfg-options {}'
    error = output_of(line, config, tmp_path / 'work', weak, code=1).splitlines()[-1]
    assert error.startswith("Error: video 'train_")
    assert 'has no windows of its sentences' in error
    assert 'no weak=True' in error


def test_browsing_tells_and_draws_every_window(tmp_path):
    corpus = write_corpus(tmp_path / 'corpus', train=1, test=3)
    with_windows(corpus / 'test.json')
    config, out = write_config(tmp_path / 'tiny.py', corpus), tmp_path / 'out'
    line = 'analysis_tools/browse_dataset.py {} --split test --number 9 --out {}'
    output = output_of(line, config, out)
    windows = [
        (f'{name}_{place}.png', own)
        for name, video in json.loads((corpus / 'test.json').read_text()).items()
        for place, own in enumerate(video['timestamps'])
    ]
    absent = [name for name, own in windows if not own]
    assert output.count('does not occur') == len(absent) > 0
    assert any(isinstance(own[0], list) for _, own in windows if own)
    assert {path.name for path in out.glob('*.png')} == {name for name, own in windows if own}


def test_a_dumped_test_is_scored_to_the_figures_of_the_loop_and_its_pictures_are_drawn(tmp_path):
    corpus = write_corpus(tmp_path / 'corpus')
    with_windows(corpus / 'test.json')
    config = write_config(tmp_path / 'tiny.py', corpus)
    checkpoint = save_checkpoint(config, tmp_path / 'tiny.pth')
    work, predictions, found = (tmp_path / name for name in ('work', 'pred.json', 'found.json'))
    line = 'test.py {} {} --work-dir {} --dump {} --show-dir {} --interval 1'
    pictures = tmp_path / 'pictures'
    line += ' --cfg-options test_evaluator.presence_threshold=0.25'
    output = output_of(line, config, checkpoint, work, predictions, pictures)
    assert 'presence of sentences: as the predictions give it' in output
    (metrics,) = (path for path in work.glob('*/*.json') if path.parent.name == path.stem)
    figures = json.loads(metrics.read_text())
    line = 'mmn eval {} {} --presence-threshold 0.25 --iou 0.5 0.7 --json {}'
    output_of(line, predictions, corpus / 'test.json', found)
    found = json.loads(found.read_text())
    assert found == {name: figures[name] for name in found}
    assert {name for name in figures if name.startswith('grounding/')} == {*found}
    assert {'grounding/mAP', 'grounding/absent/AUROC', 'grounding/absent/kept'} <= {*found}
    sentences = [
        one
        for video in read_predictions(predictions).values()
        for one in video['sentences'].values()
    ]
    assert all(-1 <= one['presence'] <= 1 for one in sentences)
    assert len([*pictures.glob('*_timeline.png')]) == len([*pictures.glob('*_map1.png')]) > 3
