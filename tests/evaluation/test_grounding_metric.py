import json
import logging

import pytest
import torch
from helpers.made_up_results import sample_of
from mmaction.registry import METRICS
from mmengine.logging import MMLogger

from mmn_plugin.evaluation import GroundingMetric
from mmn_plugin.structures.annotations import VideoAnnotation

NAN = float('nan')
LONG = VideoAnnotation('long', 100.0, [(0.0, 50.0), (0.0, 10.0)], ['first', 'second'], [0, 3])
SHORT = VideoAnnotation('short', 20.0, [(10.0, 14.0)], ['third'], [1])
CHANCE = dict(num_clips=8, pooling_counts=[7], iou_threshold=0.5, min_samples=300)


def sample(annotation, moments):
    made = sample_of(annotation, top_n=2)
    made.pred_instances.moments = torch.tensor(moments)
    return made.to_dict()


def batch():
    return [
        sample(LONG, [[[0.0, 50.0], [0.0, 1.0]], [[50.0, 60.0], [0.0, 6.0]]]),  # IoU 1; 0, then 0.6
        sample(SHORT, [[[10.0, 12.0], [NAN, NAN]]]),  # 0.5
    ]


def evaluate(samples=None, size=2, **settings):
    """Figures without their prefix, of the second of two evaluations by one metric."""
    metric = GroundingMetric(top_n=(1, 2), iou_thrs=(0.5, 0.7), **settings)
    for _ in range(2):
        metric.process(None, samples or batch())
        figures = metric.evaluate(size)
    assert all(name.startswith('grounding/') for name in figures)
    return {name.removeprefix('grounding/'): value for name, value in figures.items()}


@pytest.fixture
def log(monkeypatch):
    """Messages of warnings and tables."""
    messages = []
    monkeypatch.setattr(
        MMLogger.get_current_instance(),
        'callHandlers',
        lambda record: messages.append((record.levelno, record.getMessage())),
    )
    return messages


def warnings(log):
    return [text for level, text in log if level >= logging.WARNING]


def test_figures_are_percentages_over_sentences():
    expected = {
        'R1@0.5': 200 / 3,
        'R1@0.7': 100 / 3,
        'R2@0.5': 100.0,
        'R2@0.7': 100 / 3,
        'R1_mean': 50.0,
        'R2_mean': 200 / 3,
        'mIoU': 50.0,
        'num_sentences': 3,
        'num_videos': 2,
    }
    assert evaluate(duration_buckets=()) == pytest.approx(expected)
    assert isinstance(METRICS.build(dict(type='GroundingMetric')), GroundingMetric)


def test_groups_by_length_of_the_moment_in_seconds_or_share_of_the_video():
    figures = evaluate(duration_buckets=(10, 30, 60))
    assert figures['0-10s/num_sentences'] == 1  # 4 s
    assert figures['10-30s/R1@0.5'] == 0  # 10 s, on the edge
    assert figures['30-60s/R1@0.7'] == 100
    assert not any('from_60s' in name for name in figures)  # nobody there
    figures = evaluate(duration_buckets=(0.15, 0.3), duration_unit='share')
    assert figures['0-0.15_of_video/R2@0.5'] == 100  # 10 of 100 s
    assert figures['0.15-0.3_of_video/R1@0.5'] == 100  # 4 of 20 s
    assert figures['from_0.3_of_video/mIoU'] == 100


def test_named_subsets_count_by_the_index_in_the_annotation_file(tmp_path, log):
    subsets = {'unseen': {'long': [3], 'short': [1]}, 'seen': {'long': [0]}}
    path = tmp_path / 'subsets.json'
    path.write_text(json.dumps(subsets))
    figures = evaluate(subsets=str(path))
    assert figures['unseen/num_sentences'] == 2
    assert figures['unseen/R1@0.5'] == 50
    assert figures['seen/R1@0.7'] == 100
    assert figures == evaluate(subsets=subsets)
    assert warnings(log) == []
    figures = evaluate(subsets={'part': {'long': [0, 1]}, 'absent': {'other': [0]}})
    assert figures['part/num_sentences'] == 1
    assert not any('absent/' in name for name in figures)
    part = "1 of the 2 sentences of the subset 'part' were not evaluated, the first: video 'long', "
    assert any(part in text for text in warnings(log))


def joint_batch():
    """The corpus ``a`` has the first two sentences, ``b`` the third, of a video of the same id."""
    first, second = batch()
    return [
        dict(first, corpus='a', video_id='a/same'),
        dict(second, corpus='b', video_id='b/same'),
    ]


def test_corpora_are_groups_with_a_mean_in_which_each_counts_once(log):
    figures = evaluate(joint_batch(), duration_buckets=())
    assert (figures['a/R1@0.5'], figures['b/R1@0.5']) == (50, 100)
    assert (figures['mean/R1@0.5'], figures['mean/R2@0.7'], figures['mean/mIoU']) == (75, 25, 50)
    assert (figures['mean/num_sentences'], figures['num_videos']) == (3, 2)
    assert warnings(log) == []
    names = [line.split()[0] for line in log[-1][1].splitlines()[3:]]
    assert names == ['all', 'a', 'b', 'mean']
    plain = evaluate(duration_buckets=())
    assert {name: figures[name] for name in plain} == plain
    with pytest.raises(ValueError, match="subset 'mean' has the name of another group"):
        evaluate(joint_batch(), subsets={'mean': {'a/same': [0]}})


def test_chance_is_a_row_of_its_own_in_figures_and_table(log):
    figures = evaluate(chance=CHANCE)
    assert 0 < figures['chance/R1@0.7'] < figures['chance/R2@0.5'] < 100
    assert 'chance/num_sentences' not in figures
    table = next(text for _, text in log if 'R1@0.5' in text)
    names = [line.split()[0] for line in table.splitlines()[3:]]
    assert names == ['all', '0-10s', '10-30s', 'from_30s', 'chance']
    assert '66.67' in table
    assert evaluate(chance=CHANCE | {'seed': 5})['chance/R2@0.5'] != figures['chance/R2@0.5']


def test_every_item_counts_once_in_any_order_and_missing_ones_are_warned_of(log):
    samples = batch()
    figures = evaluate(samples)
    assert evaluate([samples[1], samples[1], samples[0], samples[1]]) == figures
    # the same video with other sentences is another item
    other = VideoAnnotation('long', 100.0, [(0.0, 10.0)], ['fourth'], [0])
    more = evaluate([*samples, sample(other, [[[0.0, 10.0], [NAN, NAN]]])], size=3)
    assert (more['num_sentences'], more['num_videos']) == (4, 2)
    assert warnings(log) == []
    evaluate(size=5)
    assert "3 of the dataset's 5 items were not evaluated" in warnings(log)[0]


def test_results_that_cannot_be_scored_are_an_error():
    with pytest.raises(ValueError, match="R@5 is asked for, but video 'long' comes with 2"):
        GroundingMetric().process(None, batch())  # at the first batch
    broken = batch()[0]
    broken['pred_instances'] = batch()[1]['pred_instances']  # for another number of sentences
    with pytest.raises(ValueError, match="video 'long' has 2 sentences"):
        GroundingMetric(top_n=(1,)).process(None, [broken])
    del broken['pred_instances']
    with pytest.raises(ValueError, match="'long' reached the metric without"):
        GroundingMetric(top_n=(1,)).process(None, [broken])
    with pytest.raises(ValueError, match='no sentence'):
        GroundingMetric().evaluate(0)


@pytest.mark.parametrize(
    'settings',
    [
        dict(top_n=()),
        dict(top_n=(0,)),
        dict(iou_thrs=(0.5, 50)),
        dict(duration_buckets=(30, 10)),
        dict(duration_buckets=(-1, 10)),
        dict(duration_unit='frames'),
        dict(subsets={'chance': {}}),
        dict(subsets={'a': [1, 2]}),
        dict(chance=dict(num_clips=4)),
        dict(chance=CHANCE | dict(nms=1)),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GroundingMetric(**settings)


def test_a_missing_or_broken_file_of_subsets_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.json'):
        GroundingMetric(subsets=str(tmp_path / 'absent.json'))
    (tmp_path / 'broken.json').write_text('{')
    with pytest.raises(ValueError, match=r'broken\.json is not a JSON file'):
        GroundingMetric(subsets=str(tmp_path / 'broken.json'))
