import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from mmaction.registry import METRICS
from mmengine.logging import MMLogger

sys.path.insert(0, str(Path(__file__).parent))
from made_up_results import sample_of

from mmn_plugin.evaluation import GroundingMetric
from mmn_plugin.structures.annotations import VideoAnnotation

NAN = float('nan')
LONG = VideoAnnotation('long', 100.0, [(0.0, 50.0), (0.0, 10.0)], ['first', 'second'], [0, 3])
SHORT = VideoAnnotation('short', 20.0, [(10.0, 14.0)], ['third'], [1])


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
    metric = GroundingMetric(top_n=(1, 2), iou_thrs=(0.5, 0.7), **settings)
    metric.process(None, samples or batch())
    return metric.evaluate(size)


@pytest.fixture
def log(monkeypatch):
    """Messages of warnings and tables."""
    messages = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger,
        'callHandlers',
        lambda record: messages.append((record.levelno, record.getMessage())),
    )
    return messages


def test_figures_are_percentages_over_sentences():
    figures = evaluate(duration_buckets=())
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
    assert figures == pytest.approx({f'grounding/{k}': v for k, v in expected.items()})


def test_it_is_built_from_a_config():
    assert isinstance(METRICS.build(dict(type='GroundingMetric')), GroundingMetric)


def test_groups_by_length_of_the_moment_in_seconds():
    figures = evaluate(duration_buckets=(10, 30, 60))
    assert figures['grounding/0-10s/num_sentences'] == 1  # 4 s
    assert figures['grounding/10-30s/R1@0.5'] == 0  # 10 s, on the edge
    assert figures['grounding/30-60s/R1@0.7'] == 100
    assert not any('from_60s' in name for name in figures)  # nobody there


def test_groups_by_share_of_the_video():
    figures = evaluate(duration_buckets=(0.15, 0.3), duration_unit='share')
    assert figures['grounding/0-0.15_of_video/R2@0.5'] == 100  # 10 of 100 s
    assert figures['grounding/0.15-0.3_of_video/R1@0.5'] == 100  # 4 of 20 s
    assert figures['grounding/from_0.3_of_video/mIoU'] == 100


def test_named_subsets_count_by_the_index_in_the_annotation_file(tmp_path):
    subsets = {'unseen': {'long': [3], 'short': [1]}, 'seen': {'long': [0]}}
    path = tmp_path / 'subsets.json'
    path.write_text(json.dumps(subsets))
    figures = evaluate(subsets=str(path))
    assert figures['grounding/unseen/num_sentences'] == 2
    assert figures['grounding/unseen/R1@0.5'] == 50
    assert figures['grounding/seen/R1@0.7'] == 100
    assert figures == evaluate(subsets=subsets)


def test_sentences_of_a_subset_that_were_not_evaluated_are_named(log):
    figures = evaluate(subsets={'part': {'long': [0, 1]}, 'absent': {'other': [0]}})
    assert figures['grounding/part/num_sentences'] == 1
    assert not any('absent/' in name for name in figures)
    assert any(
        "1 of the 2 sentences of the subset 'part'" in text and "'long', sentence 1" in text
        for level, text in log
        if level == logging.WARNING
    )


def test_chance_is_a_row_of_its_own():
    chance = dict(num_clips=8, pooling_counts=[7], iou_threshold=0.5)
    figures = evaluate(chance=chance)
    assert 0 < figures['grounding/chance/R1@0.7'] < figures['grounding/chance/R2@0.5'] < 100
    assert 'grounding/chance/num_sentences' not in figures
    other = evaluate(chance=chance | {'seed': 5})
    assert other['grounding/chance/R2@0.5'] != figures['grounding/chance/R2@0.5']


def test_the_log_gets_a_table(log):
    evaluate(chance=dict(num_clips=8, pooling_counts=[7], iou_threshold=0.5))
    [table] = [text for _, text in log if 'R1@0.5' in text]
    names = [line.split()[0] for line in table.splitlines()[3:]]
    assert names == ['all', '0-10s', '10-30s', 'from_30s', 'chance']
    assert '66.67' in table


def test_repeated_videos_count_once_and_order_does_not_matter():
    samples = batch()
    figures = evaluate(samples)
    assert evaluate([samples[1], samples[1], samples[0], samples[1]]) == figures


def test_the_same_video_with_other_sentences_is_another_item():
    other = VideoAnnotation('long', 100.0, [(0.0, 10.0)], ['fourth'], [0])
    figures = evaluate([*batch(), sample(other, [[[0.0, 10.0], [NAN, NAN]]])], size=3)
    assert figures['grounding/num_sentences'] == 4
    assert figures['grounding/num_videos'] == 2


def test_items_that_were_never_evaluated_are_warned_of(log):
    evaluate(size=5)
    assert any(
        "3 of the dataset's 5 items were not evaluated" in text
        for level, text in log
        if level == logging.WARNING
    )
    log.clear()
    evaluate(size=2)
    assert not [text for level, text in log if level >= logging.WARNING]


def test_a_second_evaluation_starts_afresh():
    metric = GroundingMetric(top_n=(1, 2))
    figures = []
    for _ in range(2):
        metric.process(None, batch())
        figures.append(metric.evaluate(2))
    assert figures[0] == figures[1]


def test_fewer_moments_than_ranks_is_an_error_at_the_first_batch():
    with pytest.raises(ValueError, match="R@5 is asked for, but video 'long' comes with 2"):
        GroundingMetric().process(None, batch())


def test_predictions_that_do_not_fit_their_video_are_an_error():
    broken = batch()[0]
    broken['pred_instances'] = batch()[1]['pred_instances']  # for another number of sentences
    with pytest.raises(ValueError, match="video 'long' has 2 sentences"):
        GroundingMetric(top_n=(1,)).process(None, [broken])
    del broken['pred_instances']
    with pytest.raises(ValueError, match="'long' reached the metric without"):
        GroundingMetric(top_n=(1,)).process(None, [broken])


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match='no sentence'):
        GroundingMetric().evaluate(0)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(top_n=()), 'top_n'),
        (dict(top_n=(0,)), 'top_n'),
        (dict(iou_thrs=(0.5, 50)), 'iou_thrs'),
        (dict(duration_buckets=(30, 10)), 'duration_buckets'),
        (dict(duration_buckets=(-1, 10)), 'duration_buckets'),
        (dict(duration_unit='frames'), 'duration_unit'),
        (dict(subsets={'chance': {}}), 'subsets'),
        (dict(subsets={'a': [1, 2]}), 'subsets'),
        (dict(chance=dict(num_clips=4)), 'chance'),
        (dict(chance=dict(num_clips=4, pooling_counts=[3], iou_threshold=0.5, nms=1)), 'chance'),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GroundingMetric(**settings)


def test_a_missing_or_broken_file_of_subsets_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.json'):
        GroundingMetric(subsets=str(tmp_path / 'absent.json'))
    (tmp_path / 'broken.json').write_text('{')
    with pytest.raises(ValueError, match=r'broken\.json is not a JSON file'):
        GroundingMetric(subsets=str(tmp_path / 'broken.json'))
