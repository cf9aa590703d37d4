"""Figures of sentences that are true in none, one or several windows."""

import json
import math
import pickle
from statistics import mean

import pytest
import torch
from helpers.made_up_results import precision_by_definition, sample_of, samples_of_windows

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import DumpPredictions, GroundingMetric, GroundingResult, format_table
from mmn_plugin.evaluation.recall import PRECISION_THRESHOLDS
from mmn_plugin.structures.annotations import VideoAnnotation

NAN = math.nan
# true once, twice, never, never
VIDEO = VideoAnnotation(
    'a',
    100.0,
    [[(0, 10)], [(0, 8), (20, 60)], [], []],
    ['one', 'two', 'none', 'never'],
    [0, 1, 3, 4],
)
MOMENTS = [
    [[0, 5], [0, 10]],  # IoU 0.5, 1
    [[20, 50], [0, 8]],  # 0.75, 1 with another window
    [[1, 2], [NAN, NAN]],
    [[NAN, NAN], [NAN, NAN]],  # rejected
]


def result(presence=None, scores=((0.9, 0.8), (0.4, 0.3), (0.5, NAN), (NAN, NAN)), **changes):
    made = sample_of(VIDEO, top_n=2)
    made.pred_instances.moments = torch.tensor(MOMENTS, dtype=torch.float32)
    made.pred_instances.scores = torch.tensor(scores)
    if presence is not None:
        made.pred_instances.presence = torch.tensor(presence)
    found = GroundingResult.from_data_sample(made.to_dict())
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def rows(*results, **settings):
    metric = GroundingMetric(top_n=(1, 2), iou_thrs=(0.5, 0.7), **settings)
    results = results or [result()]
    return metric.summarize(results), metric.notes(results)


def test_moments_count_by_the_best_window_of_sentences_that_occur():
    figures = rows()[0]['']
    assert figures['num_sentences'] == 2
    assert (figures['R1@0.5'], figures['R1@0.7'], figures['R2@0.7']) == (100, 50, 100)
    assert figures['mIoU'] == 62.5
    # precisions of one: 1 at 0.5, 1/2 from 0.55 on; of two: 1 to 0.75, then 1/2 * 1/2
    assert figures['mAP@0.5'] == 100
    assert figures['mAP@0.75'] == pytest.approx(75)
    assert figures['mAP'] == pytest.approx(
        100 * mean([mean([1, *[0.5] * 9]), mean([1] * 6 + [0.25] * 4)])
    )


def test_a_sentence_is_in_the_group_of_its_longest_window():
    found = rows(duration_buckets=(9, 30))[0]
    assert found['9-30s']['num_sentences'] == found['from_30s']['num_sentences'] == 1
    assert '0-9s' not in found
    share = rows(duration_buckets=(0.3,), duration_unit='share')[0]
    assert share['from_0.3_of_video']['mIoU'] == 75


def test_absent_sentences_are_told_from_present_ones_by_presence_or_score():
    found, notes = rows()
    assert found['absent'] == dict(num_sentences=2, AUROC=75, rejected=50, kept=100, accuracy=75)
    assert notes[1:] == [
        'presence of sentences: the score of their best moment',
        'no threshold of presence: only sentences without a moment are rejected',
    ]
    found, notes = rows(presence_threshold=0.5)  # at it is kept
    assert found['absent'] == dict(num_sentences=2, AUROC=75, rejected=50, kept=50, accuracy=50)
    assert notes[1:] == ['presence of sentences: the score of their best moment']
    given = result([0.2, 0.3, 0.1, 0.6])
    found, notes = rows(given, presence_threshold=0.2)
    # the last is rejected by itself, with whatever number
    assert found['absent'] == dict(num_sentences=2, AUROC=50, rejected=100, kept=100, accuracy=100)
    assert notes[1:] == ['presence of sentences: as the predictions give it']
    some = result([0.2, 0.3, NAN, 0.6])  # not of all that have moments
    assert rows(some)[0]['absent'] == rows()[0]['absent']


def test_what_cannot_be_computed_is_left_out_and_said():
    bare = dict(scores=[[NAN, NAN]] * 4)
    found, notes = rows(result(**bare))
    assert found['absent'] == dict(num_sentences=2, rejected=50, kept=100, accuracy=75)
    assert notes[1] == '3 sentences have moments but neither presence nor scores: no AUROC'
    found, notes = rows(result(**bare), presence_threshold=0.5)
    assert found['absent'] == dict(num_sentences=2)
    assert notes[1].endswith('no AUROC and what the threshold rejects')
    assert found[''] == rows()[0]['']


def test_an_unread_answer_is_no_rejection_and_keeps_nothing():
    unread = result(readings=['times', 'times', 'times', 'unread'])
    found, notes = rows(unread)
    assert found['absent'] == dict(num_sentences=2, rejected=0, kept=100, accuracy=50)
    assert '1 sentences have no readable answer: no AUROC' in notes
    read = rows(unread, subsets={'read': {'a': [0, 1, 3]}}, presence_threshold=0.5)[0]
    assert read['read/absent'] == dict(num_sentences=1, AUROC=50, rejected=0, kept=50, accuracy=25)
    assert read['read']['num_sentences'] == 2


def test_groups_have_their_own_absent_sentences():
    subsets = {'twice': {'a': [1]}, 'never': {'a': [4]}, 'mixed': {'a': [0, 3]}}
    found = rows(subsets=subsets, duration_buckets=())[0]
    assert [*found] == ['', 'absent', 'twice', 'never/absent', 'mixed', 'mixed/absent']
    assert found['never/absent'] == dict(num_sentences=1, rejected=100)
    assert found['mixed/absent']['AUROC'] == 100
    table = format_table(found).splitlines()
    assert [line.split()[0] for line in table if line[2] != '─'] == [
        *('sentences', 'all', 'twice', 'mixed'),
        *('sentences', 'absent', 'never/absent', 'mixed/absent'),
    ]
    with pytest.raises(ValueError, match="subset 'absent' has the name of another group"):
        rows(subsets={'absent': {'a': [0]}})
    other = result(corpus='x', video_id='x/a'), result(corpus='y', video_id='y/a')
    found = rows(*other, duration_buckets=())[0]
    assert [*found] == ['', 'absent', 'x', 'x/absent', 'y', 'y/absent', 'mean']
    assert found['mean']['num_sentences'] == 4


def test_only_absent_sentences_have_figures_without_recall():
    video = VideoAnnotation('b', 9.0, [[]], ['never'], [0])
    metric = GroundingMetric(chance=dict(num_clips=4, pooling_counts=[3], iou_threshold=0.5))
    metric.process(None, [sample_of(video).to_dict()])
    figures = metric.evaluate(1)
    assert figures == {
        'grounding/absent/num_sentences': 1,
        'grounding/absent/rejected': 0,
        'grounding/num_videos': 1,
    }


def test_one_window_for_each_sentence_has_the_figures_of_always_and_map_on_demand():
    single = VideoAnnotation('b', 9.0, [(0.0, 4.0), (2.0, 5.0)], ['x', 'y'], [0, 1])
    results = [GroundingResult.from_data_sample(sample_of(single).to_dict())]
    metric = GroundingMetric(duration_buckets=())
    found = metric.flatten(metric.summarize(results))
    assert [*found, 'num_videos'] == metric.names
    assert not [name for name in found if 'mAP' in name or 'absent' in name]
    assert metric.notes(results) == []
    metric = GroundingMetric(duration_buckets=(), average_precision=True)
    more = metric.flatten(metric.summarize(results))
    assert {*more} - {*found} == {'mAP', 'mAP@0.5', 'mAP@0.75'}
    assert [*more, 'num_videos'] == metric.names
    assert found.items() <= more.items()
    unused = GroundingMetric(presence_threshold=0.5).notes(results)
    assert unused == ['the threshold of presence is not used: every sentence occurs']
    assert metric.notes(results) == [
        'mAP takes the first 10 moments of a sentence; the most that one has is 5'
    ]


def test_figures_are_those_of_a_loop_over_sentences():
    samples = samples_of_windows()
    metric = GroundingMetric(presence_threshold=0.5, duration_buckets=(30,))
    metric.process(None, [sample.to_dict() for _, sample in samples])
    figures = metric.evaluate(len(samples))
    here, away, long = [], [], []
    for annotation, sample in samples:
        found = sample.pred_instances
        for row, windows in enumerate(annotation.windows):
            ranked = [m for m in found.moments[row].tolist() if not math.isnan(m[0])]
            presence = float(found.presence[row])
            rejected = not ranked or presence < 0.5
            if not windows:
                away.append((presence, rejected))
                continue
            windows = torch.tensor(windows, dtype=torch.float32).tolist()
            overlaps = [max(_overlap(m, w) for w in windows) for m in ranked]
            entry = [
                max(overlaps[:1], default=0),
                max(overlaps[:5], default=0),
                mean(
                    precision_by_definition(ranked, windows, level)
                    for level in PRECISION_THRESHOLDS
                ),
                presence,
                not rejected,
            ]
            here.append(entry)
            if max(end - start for start, end in windows) >= 30:
                long.append(entry)
    expected = {
        'R1@0.5': mean(entry[0] >= 0.5 for entry in here),
        'R5@0.3': mean(entry[1] >= 0.3 for entry in here),
        'mIoU': mean(entry[0] for entry in here),
        'mAP': mean(entry[2] for entry in here),
        'from_30s/mAP': mean(entry[2] for entry in long),
        'from_30s/R5@0.5': mean(entry[1] >= 0.5 for entry in long),
        'absent/rejected': mean(rejected for _, rejected in away),
        'absent/kept': mean(entry[4] for entry in here),
        'absent/AUROC': mean(
            (entry[3] > presence) + 0.5 * (entry[3] == presence)
            for entry in here
            for presence, _ in away
        ),
    }
    found = {name: figures[f'grounding/{name}'] for name in expected}
    assert found == pytest.approx({name: 100 * value for name, value in expected.items()}, abs=1e-4)
    assert figures['grounding/num_sentences'] == len(here)
    assert figures['grounding/absent/num_sentences'] == len(away) > 10
    assert len({*found.values()} - {0, 100}) > 7


def _overlap(one, other):
    common = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (max(one[1], other[1]) - min(one[0], other[0]))


def test_recall_and_map_of_real_predictions_are_the_published_evaluators(shared):
    folders = shared / 'golden/qvhighlights', shared / 'data/annotations/qvhighlights'
    golden = json.loads((folders[0] / 'sample_val_preds_metrics_raw.json').read_text())['full']
    predicted, truth = (
        {line['qid']: line for line in map(json.loads, path.read_text().splitlines())}
        for path in (
            folders[0] / 'sample_val_preds.jsonl',
            folders[1] / 'highlight_val_release.jsonl',
        )
    )
    results = []
    for qid, line in truth.items():
        ranked = torch.tensor(predicted[qid]['pred_relevant_windows'])[None, :10]  # (1, n, 3)
        windows = torch.tensor(line['relevant_windows'], dtype=torch.float32)
        ranked = torch.nn.functional.pad(ranked, (0, 0, 0, 10 - ranked.shape[1]), value=NAN)
        moments, scores = ranked[..., :2], ranked[..., 2]
        results.append(
            GroundingResult(str(qid), line['duration'], [0], [''], [windows], moments, scores)
        )
    figures = GroundingMetric((1,), PRECISION_THRESHOLDS, duration_buckets=()).summarize(results)[
        ''
    ]
    for threshold in PRECISION_THRESHOLDS:
        assert round(figures[f'R1@{threshold:g}'], 2) == golden['MR-R1'][str(threshold)]
    assert round(figures['mAP'], 2) == golden['MR-mAP']['average']
    assert round(figures['mAP@0.5'], 2) == golden['MR-mAP']['0.5']
    assert round(figures['mAP@0.75'], 2) == golden['MR-mAP']['0.75']


def test_results_leave_a_process_with_their_windows_and_are_written_with_their_presence(tmp_path):
    given = result([0.2, 0.3, 0.1, 0.6])
    again = pickle.loads(pickle.dumps(given))
    assert [own.tolist() for own in again.windows] == [own.tolist() for own in given.windows]
    assert again.windows[1].shape == (2, 2)
    assert again.windows[2].shape == (0, 2)
    metric = DumpPredictions(str(tmp_path / 'pred.json'))
    metric.results = [given]
    metric.evaluate(1)
    sentences = json.loads((tmp_path / 'pred.json').read_text())['videos']['a']['sentences']
    assert [one['presence'] for one in sentences] == given.presence.tolist()


@pytest.mark.parametrize('threshold', ['abc', float('nan'), float('inf'), True, [0.5]])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(InputError, match=r'presence_threshold=.*give a finite number'):
        GroundingMetric(presence_threshold=threshold)
