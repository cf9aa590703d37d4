"""A test on sentences that are true in none, one or several windows."""

import json

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
