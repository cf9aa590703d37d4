"""Figures of QVHighlights on cases computed by hand, and files that cannot be used."""

import json

import numpy as np
import pytest

from mmn_plugin.errors import MissingFileError
from mmn_plugin.evaluation import qvhighlights_figures, read_qvhighlights
from mmn_plugin.evaluation.predictions import PredictionsError
from mmn_plugin.evaluation.qvhighlights import (
    highlight_figures,
    highlight_precision,
    retrieval_figures,
)

TRUTH = dict(
    qid=7,
    query='a dog runs',
    vid='park_0_11',
    duration=11,
    relevant_windows=[[0, 4], [6, 10]],
    relevant_clip_ids=[0, 1],
    saliency_scores=[[4, 2, 1], [3, 0, 0]],
)
PREDICTION = dict(
    qid=7,
    query='a dog runs',
    vid='park_0_11',
    pred_relevant_windows=[[0, 4, 0.9], [6, 10, 0.5]],
    pred_saliency_scores=[0.9, 0.5, 0.4, 0.1, 0],
)


def files(folder, predictions, truths):
    paths = folder / 'pred.jsonl', folder / 'truth.jsonl'
    for path, lines in zip(paths, (predictions, truths), strict=True):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text('\n'.join(texts) + '\n')
    return paths


def without(line, *keys):
    return {key: value for key, value in line.items() if key not in keys}


def test_r1_judges_the_window_listed_first_by_the_true_window_that_it_fits_best():
    predicted = [[[0, 6, 0.1], [10, 20, 0.9]], [[2, 8, 0.1], [0, 10, 0.9]]]
    figures = retrieval_figures(predicted, [[[10, 20], [0, 10]], [[30, 40], [0, 10]]])
    assert figures['full']['MR-R1']['0.6'] == 100
    assert figures['full']['MR-R1']['0.65'] == 0


def test_a_true_window_is_found_once_and_precision_is_the_best_of_any_higher_recall():
    predicted = [[[50, 60, 0.1], [0, 10, 0.9], [0, 9, 0.8]]]
    average = retrieval_figures(predicted, [[[0, 10], [50, 60]]])['full']['MR-mAP']
    # by score: found, the same again, found; precisions 1, 1/2, 2/3
    assert average['0.95'] == average['average'] == 83.33


def test_a_taken_window_leaves_the_next_best_to_the_next_prediction():
    predicted = [[[0, 10, 0.9], [0, 10, 0.8]]]
    average = retrieval_figures(predicted, [[[0, 10], [0, 8]]])['full']['MR-mAP']
    assert average['0.8'] == 100
    assert average['0.85'] == 50


def test_map_takes_the_ten_windows_listed_first_whatever_the_score_of_others():
    wrong = [[100, 110, 0.1]] * 9
    truth = [[[0, 10]]]
    for listed, expected in (([*wrong, [0, 10, 0.9]], 100), ([*wrong, *wrong, [0, 10, 0.9]], 0)):
        assert retrieval_figures([listed], truth)['full']['MR-mAP']['0.5'] == expected


def test_windows_of_equal_score_keep_their_order():
    average = retrieval_figures([[[50, 60, 0.5], [0, 10, 0.5]]], [[[0, 10]]])['full']['MR-mAP']
    assert average['0.5'] == 50


def test_a_range_keeps_true_windows_of_its_length_and_queries_that_have_one():
    predicted = [[[0, 10, 0.9], [20, 40, 0.8]], [[0, 160, 0.9]]]
    figures = retrieval_figures(predicted, [[[0, 10], [20, 40]], [[0, 160]]])
    assert list(figures) == ['full', 'middle', 'short']  # the upper edge belongs to a range
    assert figures['full']['MR-mAP']['average'] == 100
    assert figures['middle']['MR-mAP']['average'] == 50  # the first window is false here
    assert figures['middle']['MR-R1']['0.5'] == 0
    assert figures['short']['MR-R1']['0.5'] == 100


def test_a_query_without_a_predicted_or_a_true_window_is_a_miss():
    figures = retrieval_figures([[[0, 10, 1]], [], [[0, 10, 1]]], [[[0, 10]], [[0, 10]], []])
    assert figures['full']['MR-R1']['0.5'] == figures['full']['MR-mAP']['average'] == 33.33
    assert figures['short']['MR-R1']['0.5'] == figures['short']['MR-mAP']['average'] == 50


@pytest.mark.parametrize(
    ('marked', 'scores', 'expected'),
    [
        ([1, 0, 0, 1], [0.9, 0.5, 0.4, 0.1], 0.75),  # precision 1 at the first, 2/4 at the last
        ([0, 1, 0, 1], [0.9, 0.5, 0.5, 0.1], 0.5),  # 1/3 at 0.5 is raised to 2/4 of the lowest
        ([1, 0], [0.5, 0.5], 0.5),  # equal scores are one threshold
        ([0, 0], [1, 2], 0),
        ([1, 1], [1, 2], 1),
    ],
)
def test_highlight_precision(marked, scores, expected):
    found = highlight_precision(np.array(marked, bool)[:, None], np.array(scores, float))
    assert found.tolist() == [expected]


def test_highlights_are_judged_by_each_annotator_at_three_levels():
    figures = highlight_figures([[0.5, 0.5, 0]], [np.array([[4, 2, 0], [0, 2, 0], [3, 0, 0]])])
    fair = (2 / 3 + 1 + 0) / 3  # the first: 2/3 at 0, and 1/2 at 0.5, which is raised to that
    assert figures['HL-min-Fair'] == {'HL-mAP': round(100 * fair, 2), 'HL-Hit1': 100}
    assert figures['HL-min-VeryGood'] == {'HL-mAP': round(100 / 6, 2), 'HL-Hit1': 100}


def test_the_clip_of_highest_score_is_the_first_of_equals_and_a_miss_past_the_end():
    truth = np.array([[0, 0, 0], [4, 4, 4]])
    for scores, hit in (([1, 1], 0), ([0, 1], 100), ([0, 1, 2], 0)):
        assert highlight_figures([scores], [truth])['HL-min-Fair']['HL-Hit1'] == hit


def test_scores_are_cut_or_filled_with_zeros_to_the_number_of_clips():
    truth = np.array([[4, 4, 4], [0, 0, 0]])
    for scores, expected in (([-1], 50), ([2, 1, 9], 100)):
        assert highlight_figures([scores], [truth])['HL-min-Fair']['HL-mAP'] == expected


def test_a_prediction_of_windows_or_of_highlights_alone_is_scored_and_said(tmp_path):
    both = qvhighlights_figures(read_qvhighlights(*files(tmp_path, [PREDICTION], [TRUTH]))[0])
    for kept, dropped, name in (
        ('MR', 'saliency_scores', 'highlights'),
        ('HL', 'relevant_windows', 'windows'),
    ):
        predictions = [without(PREDICTION, f'pred_{dropped}', 'vid', 'query')]
        pairs, notes = read_qvhighlights(*files(tmp_path, predictions, [TRUTH]))
        assert notes == [f'{name} are not scored: not both files have them']
        figures = qvhighlights_figures(pairs)
        expected = {key: value for key, value in both['brief'].items() if key.startswith(kept)}
        assert figures['brief'] == expected
        assert expected


def test_what_is_odd_is_counted(tmp_path):
    windows = [[-0.2, 4, 0.9], [3, 3, 0.5], [6, 12, 0.1]]
    predictions = [
        PREDICTION | dict(pred_relevant_windows=windows, pred_saliency_scores=[1, 2]),
        PREDICTION | dict(qid='other', pred_relevant_windows=[]),
        PREDICTION | dict(qid=9),
    ]
    truths = [TRUTH, TRUTH | dict(qid='other'), TRUTH | dict(qid=9, relevant_windows=[])]
    assert set(read_qvhighlights(*files(tmp_path, predictions, truths))[1]) == {
        'queries without a predicted window, a miss in R1 and mAP: 1',
        'queries without a true window, a miss in R1 and mAP: 1',
        'predicted windows that reach beyond the video, scored as they are: 2',
        'predicted windows that are empty, which hit nothing: 1',
        'queries with more or fewer saliency scores than clips, cut or filled with 0: 1',
    }


def test_both_files_can_be_cut_to_the_queries_that_they_share(tmp_path):
    predictions = [PREDICTION, PREDICTION | dict(qid=8)]
    truths = [TRUTH | dict(qid=9), TRUTH | dict(qid=10), TRUTH]
    paths = files(tmp_path, predictions, truths)
    with pytest.raises(
        PredictionsError, match=r'pred.jsonl lacks 2 queries .* qid 9: .*--shared-only'
    ):
        read_qvhighlights(*paths)
    pairs, notes = read_qvhighlights(*paths, shared_only=True)
    assert pairs == [(PREDICTION, TRUTH)]
    assert notes == [
        f'queries left out that {paths[0]} lacks: 2',
        f'queries left out that {paths[1]} lacks: 1',
    ]
    with pytest.raises(PredictionsError, match='share no query'):
        read_qvhighlights(*files(tmp_path, predictions[1:], truths), shared_only=True)
    texts = [PREDICTION | dict(qid='7')]
    with pytest.raises(PredictionsError, match='share no query; qids are numbers in one'):
        read_qvhighlights(*files(tmp_path, texts, truths), shared_only=True)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{"qid": 8,', r'line 2 is not JSON'),
        ('[' * 100_000, r'line 2 is not JSON'),
        ('[8]', r'line 2 is not an object'),
        (without(PREDICTION, 'qid'), r'line 2 has qid=None'),
        (PREDICTION, r'line 2 has qid 7, which came before'),
        (
            dict(pred_relevant_windows=[[4, 0, 0.5]]),
            r'line 2 \(qid 8\) has the window \[4, 0, 0.5\]',
        ),
        (dict(pred_relevant_windows=[[0, 4]]), r'line 2 .* has \[0, 4\] .* \[start, end, score\]'),
        (dict(pred_relevant_windows=[[0, float('nan'), 1]]), r'line 2 .*nan.* finite'),
        (dict(pred_relevant_windows='0-4'), r'line 2 .* is no list'),
        (dict(pred_saliency_scores=[0.5, float('inf')]), r'line 2 .* not a list of finite numbers'),
        (dict(pred_saliency_scores=[]), r'pred.jsonl: qid 8 has no number'),
        (dict(qid=8.0), r'line 2 has qid=8.0; expected a whole number'),
        (
            PREDICTION | dict(qid='8'),
            r'qid 8; qids are numbers in one of them and texts in the other: both',
        ),
        (dict(qid=8, vid='park_0_11'), r'line 2 .* has no "pred_relevant_windows" and no'),
        (without(PREDICTION, 'pred_saliency_scores') | dict(qid=8), r'1 of 2 lack .*\[8\]'),
        (dict(vid='park_9_20'), r"qid 8 is of the video 'park_9_20'"),
    ],
)
def test_a_prediction_that_cannot_be_used_is_named(tmp_path, line, message):
    if isinstance(line, dict) and 'qid' not in line and 'query' not in line:
        line = PREDICTION | dict(qid=8) | line
    paths = files(tmp_path, [PREDICTION, line], [TRUTH, TRUTH | dict(qid=8)])
    with pytest.raises(PredictionsError, match=message):
        read_qvhighlights(*paths)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(duration=None), 'needs "vid", and "duration"'),
        (dict(relevant_windows=[[4, 4]]), r'true window \[\[4, 4\]\], which is empty'),
        (dict(relevant_windows=[[4, 0]]), 'ends before it starts'),
        (dict(relevant_clip_ids=[0, 5]), r'has 5 twice, or it is none of the 5 clips'),
        (dict(relevant_clip_ids=[0, 0]), 'has 0 twice'),
        (dict(relevant_clip_ids=[0, True]), 'has True twice, or it is none'),
        (dict(relevant_clip_ids=[0]), 'needs as many'),
        (dict(saliency_scores=[[1, 2], [1, 2]]), 'expected 3 numbers'),
        (dict(saliency_scores=[[1, 2, 5], [1, 2, 3]]), 'expected 3 numbers from 0 to 4'),
        (dict(saliency_scores=[[1, 2, -1], [1, 2, 3]]), 'expected 3 numbers from 0 to 4'),
        (dict(duration=1), 'shorter than a clip of 2 s'),
    ],
)
def test_a_truth_that_cannot_be_used_is_named(tmp_path, changes, message):
    paths = files(tmp_path, [PREDICTION], ['', TRUTH | changes])
    with pytest.raises(PredictionsError, match=rf'truth.jsonl, line 2 \(qid 7\).*{message}'):
        read_qvhighlights(*paths)


def test_a_video_shorter_than_a_clip_needs_no_saliency_where_highlights_are_not_scored(tmp_path):
    short = without(TRUTH, 'saliency_scores', 'relevant_clip_ids')
    short |= dict(qid=8, duration=1.5, relevant_windows=[[0, 1]])
    truths = [without(TRUTH, 'saliency_scores'), short]
    predictions = [PREDICTION, PREDICTION | dict(qid=8, pred_saliency_scores=[])]
    pairs, notes = read_qvhighlights(*files(tmp_path, predictions, truths))
    assert len(pairs) == 2
    assert 'highlights are not scored: not both files have them' in notes


def test_files_without_a_line_or_a_part_in_common_are_refused(tmp_path):
    predictions, truth = files(
        tmp_path, [], [without(TRUTH, 'saliency_scores', 'relevant_windows')]
    )
    with pytest.raises(PredictionsError, match=r'pred.jsonl is empty'):
        read_qvhighlights(predictions, truth)
    with pytest.raises(MissingFileError, match=r'absent.jsonl does not exist'):
        read_qvhighlights(tmp_path / 'absent.jsonl', truth)
    predictions.write_text(json.dumps(PREDICTION))
    with pytest.raises(PredictionsError, match=r'neither .* in both files'):
        read_qvhighlights(predictions, truth)
