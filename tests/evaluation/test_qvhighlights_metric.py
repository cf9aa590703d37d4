"""QVHighlights' figures in the loop are those of its submission, to every digit."""

import json

import numpy as np
import pytest
import torch
from helpers.tiny_qvhighlights import query, write_lines

from mmn_plugin.errors import InputError
from mmn_plugin.evaluation import (
    DumpQVHighlights,
    QVHighlightsMetric,
    qvhighlights_figures,
    read_qvhighlights,
)
from mmn_plugin.evaluation.qvhighlights_metric import clip_saliency, prediction_line


def made_up(curves=True, truth=True):
    """Lines of a file, and samples of its videos with predictions, in another order."""
    rng = np.random.default_rng(0)
    durations = dict(a=30, b=24, c=150, d=150)
    lines = [query(100 + i, vid, durations[vid], rng) for i, vid in enumerate('adbcadcb')]
    samples = []
    for vid, duration in durations.items():
        places = [i for i, line in enumerate(lines) if line['vid'] == vid]
        moments = np.sort(rng.random((len(places), 10, 2)), -1) * duration
        for own, place in zip(moments, places, strict=True):
            own[: len(lines[place]['relevant_windows'])] = lines[place]['relevant_windows']
            own[7:] = np.nan
        scores = -np.sort(-rng.random((len(places), 10)))
        found = dict(moments=torch.tensor(moments), scores=torch.tensor(scores))
        found = {key: value.float() for key, value in found.items()}
        if curves:
            found['curves'] = torch.tensor(rng.random((len(places), 75))).float()
        samples.append(
            dict(
                video_id=vid,
                sentence_index=list(range(len(places))),
                sentences=[lines[i]['query'] for i in places],
                lines=[(i, lines[i]) for i in places],
                pred_instances=found,
            )
        )
    if not truth:
        for line in lines:
            del line['relevant_windows'], line['saliency_scores'], line['relevant_clip_ids']
    return lines, samples[::-1]


def evaluate(metric, samples):
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def submission(folder, samples):
    path = folder / 'out' / 'answers.jsonl'
    assert evaluate(DumpQVHighlights(str(path)), samples) == {}
    return path


@pytest.mark.parametrize('curves', [True, False])
def test_the_loop_and_the_submission_give_the_same_figures(tmp_path, curves):
    lines, samples = made_up(curves)
    found = evaluate(QVHighlightsMetric(), [*samples, samples[0]])  # as samplers repeat
    write_lines(tmp_path / 'truth.jsonl', lines)
    pairs, notes = read_qvhighlights(submission(tmp_path, samples), tmp_path / 'truth.jsonl')
    expected = qvhighlights_figures(pairs)['brief']
    assert found == {f'qvhighlights/{name}': value for name, value in expected.items()} | {
        'qvhighlights/num_queries': 8.0
    }
    assert found['qvhighlights/MR-full-mAP'] == 100
    assert ('qvhighlights/HL-min-Fair-mAP' in found) == curves
    assert notes == ([] if curves else ['highlights are not scored: not both files have them'])


def test_a_submission_has_the_queries_in_the_order_of_the_file(tmp_path):
    lines, samples = made_up()
    answers = list(map(json.loads, submission(tmp_path, samples).read_text().splitlines()))
    assert [one['qid'] for one in answers] == [line['qid'] for line in lines]
    for answer, line in zip(answers, lines, strict=True):
        assert list(answer) == [
            'qid',
            'query',
            'vid',
            'pred_relevant_windows',
            'pred_saliency_scores',
        ]
        assert answer['vid'] == line['vid']
        assert len(answer['pred_relevant_windows']) == 7
        assert len(answer['pred_saliency_scores']) == line['duration'] // 2


def test_without_truth_there_is_a_submission_and_no_figure(tmp_path):
    _, samples = made_up(truth=False)
    assert evaluate(QVHighlightsMetric(), samples) == {}
    assert len(submission(tmp_path, samples).read_text().splitlines()) == 8


def test_the_saliency_of_a_clip_is_the_curve_at_its_middle():
    curve = np.arange(75, dtype=np.float32)
    assert clip_saliency(curve, 150) == list(range(75))
    # a part of the curve is 1.6 s of 120 s; middles of clips are at 1, 3, 5, 7, 9 s
    assert clip_saliency(curve, 120)[:5] == [0, 1, 3, 4, 5]
    assert len(clip_saliency(curve, 121)) == 60
    assert clip_saliency(curve[:2], 9) == [0, 0, 1, 1]


def test_moments_that_are_not_there_are_no_windows():
    line = dict(qid=7, query='a dog runs', vid='park', duration=10)
    moments = torch.tensor([[2.0, 4.0], [torch.nan, torch.nan]])
    found = prediction_line(line, moments, torch.tensor([0.5, torch.nan]), None)
    assert found == {
        'qid': 7,
        'query': 'a dog runs',
        'vid': 'park',
        'pred_relevant_windows': [[2.0, 4.0, 0.5]],
    }


def test_what_the_metric_needs_is_named(tmp_path):
    _, (sample, *_) = made_up()
    for key, message in (('lines', r"meta_keys=\['lines'\]"), ('pred_instances', 'mode="predict"')):
        lacking = {name: value for name, value in sample.items() if name != key}
        with pytest.raises(InputError, match=message):
            QVHighlightsMetric().process(None, [lacking])
    with pytest.raises(InputError, match=r'out\.json must end in \.jsonl'):
        DumpQVHighlights(str(tmp_path / 'out.json'))


def test_moment_detrs_published_predictions_have_the_published_figures_in_the_loop(shared):
    golden = shared / 'golden' / 'qvhighlights'
    truth = shared / 'data' / 'annotations' / 'qvhighlights' / 'highlight_val_release.jsonl'
    lines = map(json.loads, (golden / 'sample_val_preds.jsonl').read_text().splitlines())
    predicted = {line['qid']: line for line in lines}
    videos = {}
    for place, line in enumerate(map(json.loads, truth.read_text().splitlines())):
        videos.setdefault(line['vid'], []).append((place, line))
    samples = []
    for vid, own in videos.items():
        answers = [predicted[line['qid']] for _, line in own]
        windows = torch.tensor([answer['pred_relevant_windows'] for answer in answers])
        curves = torch.zeros(len(own), own[0][1]['duration'] // 2)
        for curve, answer in zip(curves, answers, strict=True):
            given = torch.tensor(answer['pred_saliency_scores'])
            curve[: len(given)] = given  # some lack the last clip, which the evaluator gives 0
        samples.append(
            dict(
                video_id=vid,
                sentence_index=list(range(len(own))),
                sentences=[line['query'] for _, line in own],
                lines=own,
                pred_instances=dict(
                    moments=windows[..., :2], scores=windows[..., 2], curves=curves
                ),
            )
        )
    found = evaluate(QVHighlightsMetric(), samples[::-1])
    expected = json.loads((golden / 'sample_val_preds_metrics_raw.json').read_text())['brief']
    assert {name: found[f'qvhighlights/{name}'] for name in expected} == expected
