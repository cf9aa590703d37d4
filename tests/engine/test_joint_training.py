"""One model on two corpora in two processes: killed, resumed, and tested."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.faults import videos
from helpers.run_tool import output_of
from helpers.tiny_corpus import write_config, write_corpus
from helpers.tiny_run import load

from mmn_plugin.apis import GroundingInferencer
from mmn_plugin.evaluation import read_predictions

pytestmark = pytest.mark.skipif(not hasattr(__import__('os'), 'fork'), reason='needs fork')

# The corpora have the same ids. Dropout is on, and both ranks' negatives are told apart by ids.
JOINT = """
custom_imports = dict(imports=['mmn_plugin', 'helpers.faults'])
custom_hooks = [dict(type='FaultHook')]
default_hooks = dict(
    checkpoint=dict(interval=1, iter_interval=1, save_best='grounding/mean/R1@0.5'))
model.update(head=dict(negatives=dict(scope='global')))
corpora = [dict(type='TemporalGroundingDataset', corpus=name, data_root=f'{FOLDER}/{name}/')
           for name in ('kitchen', 'street')]
train_dataloader.update(
    sampler=dict(_delete_=True, type='CorpusSampler', num_sentences=32),
    dataset=dict(_delete_=True, type='JointDataset', datasets=[
        dict(train_dataloader['dataset'], **corpus) for corpus in corpora]))
test_dataloader.update(dataset=dict(_delete_=True, type='JointDataset', datasets=[
    dict(test_dataloader['dataset'], test_mode=True, **corpus) for corpus in corpora]))
val_dataloader = test_dataloader
"""
TRAIN, TEST = dict(kitchen=3, street=10), dict(kitchen=2, street=5)


@pytest.fixture(scope='module')
def lab(tmp_path_factory, zygote):
    """A folder with two corpora and a config, and what starts runs in it."""
    folder = tmp_path_factory.mktemp('joint')
    for seed, name in enumerate(TRAIN):
        write_corpus(folder / name, TRAIN[name], TEST[name], seed)
    config = write_config(
        folder / 'joint.py',
        folder / 'street',
        'mmn_plugin::mmn_joint.py',
        extra=f'FOLDER = {str(folder)!r}{JOINT}',
    )

    def run(name, *arguments, fault=None):
        output = folder / f'{name}_{len(list(folder.iterdir()))}.txt'
        given = [config, '--work-dir', folder / name, *arguments]
        codes, text = zygote.run(*given, output=output, MMN_FAULT=repr(fault or {}))
        return SimpleNamespace(codes=codes, output=text, folder=folder / name)

    return SimpleNamespace(folder=folder, config=config, run=run)


@pytest.fixture(scope='module')
def unbroken(lab):
    """Work folder of the run that nothing happens to."""
    run = lab.run('unbroken')
    assert run.codes == [0, 0], run.output
    return run.folder


def test_a_run_killed_inside_an_epoch_ends_with_the_same_weights(lab, unbroken):
    steps = len(videos(unbroken, 0)) // 2
    assert steps > 3
    fault = dict(kill=(steps + 2, 1))  # SIGKILL of one rank, inside the second epoch
    killed = lab.run('killed', fault=fault)
    assert -9 in killed.codes
    resumed = lab.run('killed', '--resume')
    assert resumed.codes == [0, 0], resumed.output
    first, second = (load(folder / 'epoch_2.pth') for folder in (unbroken, resumed.folder))
    assert all(torch.equal(first['state_dict'][n], second['state_dict'][n])
               for n in first['state_dict'])  # fmt: skip
    for rank in (0, 1):
        assert videos(resumed.folder, rank) == videos(unbroken, rank)
    begun = [line for line in (resumed.folder / 'videos_0.txt').read_text().splitlines()
             if line.startswith('1 0: ')]  # fmt: skip
    assert len(begun) == 1  # the second epoch went on where it was


def test_corpora_are_balanced(unbroken):
    names = ' '.join(' '.join(videos(unbroken, rank).values()) for rank in (0, 1))
    assert names.count('kitchen/train_') > names.count('street/train_') / 2 > 0  # 3 and 10 videos


def test_a_test_has_figures_of_each_corpus_that_their_dumped_files_have_too(lab, unbroken):
    (best,) = unbroken.glob('best_grounding_mean_R1@0.5_epoch_*.pth')
    folder = lab.folder / 'test'
    line = 'test.py {} {} --work-dir {} --dump {} --show-dir {} --interval 2'
    output_of(line, lab.config, best, folder, folder / 'answers.json', folder / 'pictures')
    # every second video, and none in the place of another one of its id
    assert len([*(folder / 'pictures').glob('*_timeline.png')]) == 4
    (metrics,) = (path for path in folder.glob('*/*.json') if path.parent.name == path.stem)
    figures = json.loads(metrics.read_text())
    names = 'R1@0.5', 'R5@0.7', 'mIoU'
    for name in names:
        own = [figures[f'grounding/{corpus}/{name}'] for corpus in TEST]
        assert figures[f'grounding/mean/{name}'] == pytest.approx(sum(own) / 2)
    for corpus, count in TEST.items():
        answers = folder / f'answers_{corpus}.json'
        assert {*read_predictions(answers)} == {f'test_{i}' for i in range(count)}
        report = folder / f'{corpus}.json'
        annotations = lab.folder / corpus / 'test.json'
        output_of('mmn eval {} {} --json {}', answers, annotations, report)
        found = json.loads(report.read_text())
        for name in names:
            assert found[f'grounding/{name}'] == figures[f'grounding/{corpus}/{name}']
    assert not (folder / 'answers.json').exists()


def test_a_joint_model_answers_and_is_saved_as_any_other(lab, unbroken):
    (best,) = unbroken.glob('best_grounding_mean_R1@0.5_epoch_*.pth')
    inferencer = GroundingInferencer(lab.config, best, 'cpu')
    features = np.random.default_rng(0).random((20, 6), np.float32)
    ask = dict(sentences=['a person opens the door'], duration=30.0)
    answer = inferencer(features, **ask)
    inferencer.save_pretrained(lab.folder / 'saved')
    saved = GroundingInferencer.from_pretrained(lab.folder / 'saved', device='cpu')
    assert saved(features, **ask) == answer
