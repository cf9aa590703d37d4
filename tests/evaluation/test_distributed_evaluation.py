"""Every sentence counts once, whatever the number of processes."""

import json
from pathlib import Path

import pytest
from helpers.made_up_results import sample_of, samples_of_windows, tube_samples
from helpers.processes import in_ranks
from helpers.run_tool import output_of
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from mmn_plugin.datasets import TubeVideo, write_tube_file
from mmn_plugin.evaluation import (
    DumpPredictions,
    DumpTubeSubmission,
    GroundingMetric,
    TubeGroundingMetric,
)
from mmn_plugin.structures.annotations import read_annotations

SENTENCES = 4001


def evaluate(rank, ranks, samples, metrics, order='default'):
    """Figures that a rank of so many finds."""
    items = list(DefaultSampler(range(len(samples)), shuffle=False))
    if order == 'repeated first':
        # The items repeated to fill up the last round come first: a cut at the end would lose
        # others
        items = [*range(-len(samples) % ranks), *range(len(samples))][rank::ranks]
    evaluator = Evaluator(metrics)
    for batch in DataLoader(samples, sampler=items, batch_size=2, collate_fn=list):
        evaluator.process(batch)
    return evaluator.evaluate(len(samples))


def of_moments(rank, ranks, annotations, path, order):
    metric = GroundingMetric(
        iou_thrs=(0.1, 0.3, 0.5),
        chance=dict(num_clips=16, pooling_counts=[15], iou_threshold=0.4),
    )
    samples = [sample_of(video) for video in read_annotations(annotations)]
    return evaluate(rank, ranks, samples, [metric, DumpPredictions(path)], order)


def of_windows(rank, ranks, path, order):
    samples = [sample for _, sample in samples_of_windows()]
    metric = GroundingMetric(
        presence_threshold=0.5,
        chance=dict(num_clips=8, pooling_counts=[7], iou_threshold=0.4, min_samples=500),
    )
    return evaluate(rank, ranks, samples, [metric, DumpPredictions(path)], order)


def of_tubes(rank, ranks, path):
    metric = TubeGroundingMetric(bounds=dict(num_clips=16, pooling_counts=[15]))
    return evaluate(rank, ranks, tube_samples(), [metric, DumpTubeSubmission(path)])


@pytest.fixture(scope='module')
def single(shared, tmp_path_factory):
    """Figures and predictions of one process."""
    path = tmp_path_factory.mktemp('single') / 'predictions.json'
    annotations = shared / 'data/annotations/tacos/test.json'
    return of_moments(0, 1, annotations, str(path), 'default'), path.read_bytes()


def test_one_process_finds_every_sentence(single):
    figures, predictions = single
    assert figures['grounding/num_sentences'] == SENTENCES
    assert figures['grounding/num_videos'] == 25
    assert 0 < figures['grounding/R1@0.5'] < 100
    videos = json.loads(predictions)['videos'].values()
    assert sum(len(video['sentences']) for video in videos) == SENTENCES


@pytest.mark.parametrize(('ranks', 'order'), [(2, 'default'), (3, 'repeated first')])
def test_more_processes_find_the_same(shared, tmp_path, monkeypatch, single, ranks, order):
    monkeypatch.chdir(tmp_path)
    annotations = shared / 'data/annotations/tacos/test.json'
    given = (ranks, annotations, 'predictions.json', order)
    found = in_ranks(tmp_path, of_moments, *given, ranks=ranks)
    assert found == [single[0]] * ranks
    assert (tmp_path / 'predictions.json').read_bytes() == single[1]


@pytest.mark.parametrize(('ranks', 'order'), [(2, 'default'), (3, 'repeated first')])
def test_several_processes_find_the_same_of_none_or_several_windows(
    tmp_path, monkeypatch, ranks, order
):
    monkeypatch.chdir(tmp_path)
    single = of_windows(0, 1, 'single.json', 'default')
    found = in_ranks(tmp_path, of_windows, ranks, 'several.json', order, ranks=ranks)
    assert found == [single] * ranks
    assert Path('several.json').read_bytes() == Path('single.json').read_bytes()
    assert {'grounding/mAP', 'grounding/absent/AUROC', 'grounding/chance/R1@0.5'} <= single.keys()


def test_several_processes_find_the_same_of_tubes_and_the_scorer_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = of_tubes(0, 1, 'single.json')
    assert in_ranks(tmp_path, of_tubes, 2, 'answers.json') == [figures] * 2
    answers = json.loads(Path('answers.json').read_text())
    assert json.loads(Path('single.json').read_text()) == answers
    assert len(answers) == figures['tubes/num_sentences'] == 10
    assert figures['tubes/oracle_m_vIoU'] > figures['tubes/chance_m_vIoU'] > 0
    assert {'v0', 'v1#0', 'v1#1'} <= answers.keys()
    truth = [
        TubeVideo(sample['video_id'], sample['sentences'], sample['gt_instances']['tubes'])
        for sample in tube_samples()
    ]
    write_tube_file('truth.h5', truth)
    output_of('mmn eval answers.json truth.h5 --json scores.json')
    for name, value in json.loads(Path('scores.json').read_text()).items():
        assert value == pytest.approx(figures[name], rel=1e-12), name
